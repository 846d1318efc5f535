"""What a key must cover for each operation: one table, and the check before every endpoint.

The check runs when it is known which route was asked, and before a byte of the body is looked at.
A route without a rule here keeps the application from starting.
"""

from collections.abc import Callable, Coroutine, Mapping
from enum import Enum
from inspect import signature
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from deployments.errors import Forbidden
from deployments.ingress.entry import CURRENT
from deployments.ingress.idempotency import Idempotency
from deployments.types.access import Scope

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Rule(Enum):
    """What is asked of a caller where it is no scope."""

    PUBLIC = "no key"
    ANY_KEY = "any key"


PUBLIC, ANY_KEY = Rule.PUBLIC, Rule.ANY_KEY

RULES: Final[Mapping[str, Scope | Rule]] = {
    **dict.fromkeys(("infer", "createChatCompletion", "createCompletion"), "inference"),
    **dict.fromkeys(("createEmbedding", "rerankV1", "rerankV2", "rerank"), "inference"),
    **dict.fromkeys(("clean", "vectorize", "search", "difyRetrieval", "difyHealth"), "data"),
    **dict.fromkeys(("listCollections", "getCollection", "listDocuments", "getDocument"), "data"),
    "export": "data",
    **dict.fromkeys(("index", "import", "deleteDocument"), "data:write"),
    **dict.fromkeys(("createCollection", "updateCollection", "deleteCollection"), "data:write"),
    **dict.fromkeys(("erase", "getErasure"), "data:erase"),
    **dict.fromkeys(("loadModel", "unloadModel", "switchModel", "modelsStatus"), "models"),
    **dict.fromkeys(("finetuneModel", "listTunings", "getTuning", "cancelTuning"), "finetune"),
    "deleteTuning": "finetune",
    **dict.fromkeys(("listModels", "retrieveModel"), ANY_KEY),
    **dict.fromkeys(("uploadFile", "listFiles", "getFile", "getFileContent"), "tasks"),
    **dict.fromkeys(("deleteFile", "createBatch", "listBatches", "getBatch"), "tasks"),
    "cancelBatch": "tasks",
    "metrics": "metrics",
    **dict.fromkeys(("enrollTotp", "confirmTotp", "getTotp", "removeTotp"), ANY_KEY),
    **dict.fromkeys(("createKey", "listKeys", "getKey", "rotateKey", "revokeKey"), "admin"),
    **dict.fromkeys(("listAudit", "verifyAudit"), "audit"),
    **dict.fromkeys(("giveFeedback", "listFeedback"), "feedback"),
    **dict.fromkeys(("inferAsync", "inferBatch"), "inference"),
    **dict.fromkeys(("listTasks", "getTask", "followTask"), "tasks"),
    **dict.fromkeys(("cancelTask", "removeTask", "retryTask"), "tasks"),
    **dict.fromkeys(("getWebhookSecret", "listWebhookDeliveries", "redeliverWebhook"), "tasks"),
    **dict.fromkeys(("health", "ready"), PUBLIC),
}
"""By the operation's id in the OpenAPI description."""


SENSITIVE: Final = frozenset(
    {
        *("createKey", "rotateKey", "revokeKey", "removeTotp"),
        *("erase", "finetuneModel", "deleteTuning"),
    }
)
"""Operations that ask for a second factor; and `unloadModel`, if it takes what an alias names."""


CHANGES: Final = frozenset(
    {
        *("index", "import", "deleteDocument", "erase"),
        *("createCollection", "updateCollection", "deleteCollection"),
        *("loadModel", "unloadModel", "switchModel"),
        *("finetuneModel", "cancelTuning", "deleteTuning"),
        *("createKey", "rotateKey", "revokeKey"),
        *("enrollTotp", "confirmTotp", "removeTotp"),
        *("uploadFile", "deleteFile", "createBatch", "cancelBatch"),
        *("inferAsync", "cancelTask", "removeTask", "retryTask", "giveFeedback"),
        "redeliverWebhook",
    }
)
"""Operations that change what is stored: written down before they begin, and before they answer."""

ONE_ROW: Final = frozenset({"inferAsync"})
"""Changes that are one row, in one commit, which itself says whose they are and when they came:
these are written down before they answer, only. An intent would cost as much as the change."""

READS: Final = frozenset(
    {
        *("infer", "inferBatch", "createChatCompletion", "createCompletion", "createEmbedding"),
        *("rerankV1", "rerankV2", "rerank", "clean", "vectorize", "search", "difyRetrieval"),
        "export",
    }
)
"""Operations that change nothing although their method is not GET."""

CREATING: Final = frozenset(
    {
        *("createCollection", "index", "import", "export", "erase"),
        *("uploadFile", "createBatch"),
        *("loadModel", "finetuneModel", "createKey", "rotateKey", "inferAsync"),
    }
)
"""Operations that happen once for an `Idempotency-Key`."""

BRIEF: Final = frozenset({"inferAsync", "createBatch", "createKey", "rotateKey"})
"""Those of them that only write a row: one that is not done after a while died with its ingress."""


class GuardedRoute(APIRoute):
    """A route behind the check of its rule."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **described: Any) -> None:
        """Raise RuntimeError when no rule says who may ask."""
        operation = str(described.get("operation_id"))
        if operation not in RULES:
            raise RuntimeError(f"no rule says who may ask {operation}")
        self._rule = RULES[operation]
        self._is_change = operation in CHANGES
        if not self._is_change and operation not in READS and {*described["methods"]} - {"GET"}:
            raise RuntimeError(f"nothing says whether {operation} changes something")
        super().__init__(path, endpoint, **described)

    def get_route_handler(self) -> Handler:
        """Return what answers; it raises Forbidden before anything is read."""
        return self._guarded(super().get_route_handler())

    def is_plain(self) -> bool:
        """Return whether the endpoint takes the request, and nothing of it by name."""
        return [*signature(self.endpoint).parameters] == ["request"]

    def plain_handler(self) -> Handler:
        """Return what answers by the endpoint alone, where it is plain."""
        return self._guarded(self.endpoint)

    def _guarded(self, answer: Handler) -> Handler:
        rule = self._rule
        if self.operation_id in CREATING:
            answer = _once(answer, self.operation_id)
        if self._is_change:
            answer = _written_down(answer, self.operation_id in ONE_ROW)
        if isinstance(rule, Rule):
            return answer

        async def checked(request: Request) -> Response:
            if not request.state.key.has(rule):
                error = Forbidden(f"the key does not have the scope `{rule}`")
                error.param = "scope"
                raise error
            return await answer(request)

        return checked


def _written_down(answer: Handler, is_one_row: bool) -> Handler:
    """Return what answers once the audit log knows what is about to be done, or can be told."""

    async def begun(request: Request) -> Response:
        entry = CURRENT.get()
        if entry is not None:
            entry.be_called(request.scope["route"].operation_id)
            if is_one_row:
                entry.owe()
            else:
                await entry.begin()
        return await answer(request)

    return begun


def _once(answer: Handler, operation: str) -> Handler:
    async def once(request: Request) -> Response:
        idempotency: Idempotency = request.app.state.idempotency
        return await idempotency.answer(request, operation, answer, is_brief=operation in BRIEF)

    return once


def guarded(**options: Any) -> APIRouter:
    """Return a router whose routes all have a rule."""
    return APIRouter(route_class=GuardedRoute, **options)
