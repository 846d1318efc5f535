"""The Embedder deployments of one graph: one for each embedding model, the default first.

It does not know collections; ``spaces.py`` knows which model each of them has.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.errors import Conflict, InvalidRequest
from graphs.handles import Deadline, Response, call, call_all
from graphs.resting import check

DEFAULT = "Embedder"
NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]")


def embedder_name(model: str) -> str:
    """Return the name of a further model's deployment, which the YAML's `deployments` uses."""
    return f"{DEFAULT}-{NOT_IN_NAMES.sub('-', model)}"


class Embedders:
    """Calls the Embedder of a model."""

    def __init__(self, handles: Mapping[str, DeploymentHandle[Any]]) -> None:
        """Take each model's handle, the default model's first."""
        self._handles = dict(handles)
        # What each question asks has its handle made once: `handle.method` makes another each time.
        self._queries = {model: h.options(method_name="embed") for model, h in handles.items()}
        self._dims: dict[str, int] = {}
        self.models = tuple(handles)
        self.default = self.models[0]

    def handle(self, model: str) -> DeploymentHandle[Any]:
        """Return a model's handle, for callers of methods that are not here."""
        return self._handles[model]

    def query(self, model: str, texts: Sequence[str]) -> Response:
        """Return the response, not awaited, to one vector and number of tokens per text.

        Raises:
            InvalidRequest: there is no model.
            Conflict: this installation does not run the model.
        """
        self._check(model)
        return self._queries[model].remote(list(texts))

    def documents(
        self, model: str, texts: Sequence[str], overlap_tokens: int | None = None
    ) -> Response:
        """Return the response, not awaited, to each text's segments and vectors; as `query`."""
        self._check(model)
        return self._handles[model].embed_documents.remote(list(texts), overlap_tokens)

    async def dim(self, model: str, deadline: Deadline) -> int:
        """Return the length of a model's vectors."""
        if model not in self._dims:
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

    def _check(self, model: str) -> None:
        if not model:
            message = "the collection has no embedding model: bring vectors, or search by words"
            raise _named(InvalidRequest(message))
        if model not in self._handles:
            message = f"the collection's embedding model, {model}, does not run here"
            raise _named(Conflict(message))


def _named(error: InvalidRequest | Conflict) -> InvalidRequest | Conflict:
    error.param = "collection"
    return error
