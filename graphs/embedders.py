"""The Embedder deployments of one graph: one for each embedding model, the default first.

It does not know collections; ``spaces.py`` knows which model each of them has.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.errors import Conflict, InvalidRequest
from graphs.handles import Deadline, Response, call, call_all
from graphs.loaded import Loaded
from graphs.resting import check

DEFAULT = "Embedder"
NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]")


def embedder_name(model: str) -> str:
    """Return the name of a further model's deployment, which the YAML's `deployments` uses."""
    return f"{DEFAULT}-{NOT_IN_NAMES.sub('-', model)}"


class Embedders:
    """Calls the Embedder of a model."""

    def __init__(self, handles: Mapping[str, DeploymentHandle[Any]]) -> None:
        """Take each model's handle, the default model's first; there may be none."""
        self._handles = dict(handles)
        # What each question asks has its handle made once: `handle.method` makes another each time.
        self._queries = {model: h.options(method_name="embed") for model, h in handles.items()}
        self._dims: dict[str, int] = {}
        self.find: Callable[[str], Loaded | None] = lambda _: None
        """Finds models that are loaded at run time."""
        self.models = tuple(handles)
        self.default = self.models[0] if self.models else ""

    def handle(self, model: str) -> DeploymentHandle[Any]:
        """Return a model's handle, for callers of methods that are not here."""
        return self._handles[model]

    def query(self, model: str, texts: Sequence[str]) -> Response:
        """Return the response, not awaited, to one vector and number of tokens per text.

        It may be an argument of another call; what may take long is asked by `texts`.

        Raises:
            InvalidRequest: there is no model.
            Conflict: this installation does not run the model.
        """
        return self._of(model)[1].remote(list(texts))

    def texts(self, model: str, texts: Sequence[str]) -> Response:
        """Return the same as a stream of one item."""
        return self._apart(model, "texts_apart").remote(list(texts))

    def documents(
        self, model: str, texts: Sequence[str], overlap_tokens: int | None = None
    ) -> Response:
        """Return the response, a stream of one item, to each text's segments and vectors."""
        return self._apart(model, "documents_apart").remote(list(texts), overlap_tokens)

    async def dim(self, model: str, deadline: Deadline) -> int:
        """Return the length of a model's vectors."""
        if model not in self._dims or model not in self._handles:  # a version may be another now
            vectors, _ = await call(self.query(model, ["dimension"]), deadline)
            self._dims[model] = vectors.shape[1]
        return self._dims[model]

    async def check(self, deadline: Deadline) -> None:
        """Raise unless every model can be asked."""
        calls = [check(handle, deadline) for handle in self._handles.values()]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer

    async def stats(self, deadline: Deadline) -> list[Any]:
        """Return what each replica of every model says of itself."""
        calls = [call_all(handle, "stats", deadline) for handle in self._handles.values()]
        return [one for answers in await asyncio.gather(*calls) for one in answers]

    def runs(self, model: str) -> bool:
        """Return whether a model embeds here now."""
        return model in self._handles or self.find(model) is not None

    def _apart(self, model: str, method: str) -> DeploymentHandle[Any]:
        handle, _ = self._of(model)
        return handle.options(method_name=method, stream=True)

    def _of(self, model: str) -> tuple[DeploymentHandle[Any], DeploymentHandle[Any]]:
        """Return a model's handle, and the one that embeds queries."""
        if model in self._handles:
            return self._handles[model], self._queries[model]
        if not model:
            message = "the collection has no embedding model: bring vectors, or search by words"
            raise _named(InvalidRequest(message))
        loaded = self.find(model)
        if loaded is None:
            message = f"the collection's embedding model, {model}, does not run here"
            raise _named(Conflict(message))
        return loaded.handle, loaded.embed


def _named(error: InvalidRequest | Conflict) -> InvalidRequest | Conflict:
    error.param = "collection"
    return error
