"""The graph as a key sees it that covers only some models, or some of its tenant's collections.

What it does not cover is what does not exist: the same error, to the byte.
"""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager

from deployments.errors import Forbidden, NotFound
from deployments.ingress.caching.answer_cache import AnswerCache
from deployments.ingress.caching.use import CacheUse
from deployments.ingress.generation import default_of, unknown_model
from deployments.ingress.graph import Graph
from deployments.ingress.tenant_graph import TenantGraph
from deployments.stores.collections import not_found
from deployments.types import (
    AnswerEvent,
    CollectionInfo,
    CollectionSettings,
    EmbeddedText,
    Erasure,
    ErasureScope,
    GenerationRequest,
    ModelKind,
    Relevance,
    Retrieval,
    Vectors,
)
from deployments.types.access import Grants


class KeyGraph(TenantGraph):
    """A `TenantGraph` without what the grants leave out."""

    def __init__(
        self, graph: Graph, tenant: str, grants: Grants, answers: AnswerCache | None = None
    ) -> None:
        super().__init__(graph, tenant, answers)
        self._grants = grants

    @property
    def generation_models(self) -> Sequence[str]:
        """Return the ids of the loaded generation models that are covered."""
        return self._covered(super().generation_models)

    @property
    def embedding_models(self) -> Sequence[str]:
        """Return the ids of the loaded embedding models that are covered."""
        return self._covered(super().embedding_models)

    @property
    def reranking_models(self) -> Sequence[str]:
        """Return the ids of what can rerank, as far as it is covered."""
        return self._covered(super().reranking_models)

    async def resolve(self, model: str, kind: ModelKind) -> str:
        """Return the id of the very model behind an id or alias that is covered."""
        self._check(model)
        return await super().resolve(model, kind)

    async def generate(
        self, request: GenerationRequest, *, timeout_s: float, use: CacheUse | None = None
    ) -> AsyncGenerator[AnswerEvent]:
        """Yield the events of an answer from the model alone."""
        self._check_generators(request)
        async with aclosing(super().generate(request, timeout_s=timeout_s, use=use)) as events:
            async for event in events:
                yield event

    async def answer(
        self,
        request: GenerationRequest,
        retrieval: Retrieval,
        *,
        timeout_s: float,
        use: CacheUse | None = None,
    ) -> AsyncGenerator[AnswerEvent]:
        """Yield the events of an answer from a collection."""
        self._check_generators(request)
        events = super().answer(request, retrieval, timeout_s=timeout_s, use=use)
        async with aclosing(events):
            async for event in events:
                yield event

    async def embed(
        self, texts: Sequence[str], *, model: str, timeout_s: float
    ) -> tuple[Vectors, list[int]]:
        """Return one vector and the number of tokens per text."""
        self._check(model)
        return await super().embed(texts, model=model, timeout_s=timeout_s)

    async def dim(self, model: str, *, timeout_s: float) -> int:
        """Return the length of an embedding model's vectors."""
        self._check(model)
        return await super().dim(model, timeout_s=timeout_s)

    async def vectorize(
        self, texts: Sequence[str], *, model: str, overlap_tokens: int | None, timeout_s: float
    ) -> list[EmbeddedText]:
        """Return each text's segments and their vectors."""
        self._check(model)
        return await super().vectorize(
            texts, model=model, overlap_tokens=overlap_tokens, timeout_s=timeout_s
        )

    async def rerank(
        self, query: str, texts: Sequence[str], *, model: str | None = None, timeout_s: float
    ) -> Relevance:
        """Return one score in [0, 1] per text, in order."""
        model = default_of(self.reranking_models) if model is None else model
        self._check(model)
        return await super().rerank(query, texts, model=model, timeout_s=timeout_s)

    async def collections(self, *, timeout_s: float) -> list[CollectionInfo]:
        """Return every collection that is covered, by name."""
        found = await super().collections(timeout_s=timeout_s)
        return [info for info in found if self._grants.covers_collection(info.name)]

    async def create_collection(
        self, name: str, settings: CollectionSettings, *, timeout_s: float
    ) -> CollectionInfo:
        """Create a collection; raises Forbidden when it would not be covered."""
        if not self._grants.covers_collection(name):
            raise Forbidden("the key covers no collection of this name")
        return await super().create_collection(name, settings, timeout_s=timeout_s)

    async def erase(self, scope: ErasureScope, *, wait_s: float, timeout_s: float) -> Erasure:
        """Erase documents; raises Forbidden when others than the covered could be among them."""
        if scope.collection is None and self._grants.collections is not None:
            raise Forbidden("the key covers some collections only: name one")
        return await super().erase(scope, wait_s=wait_s, timeout_s=timeout_s)

    async def erasure(self, erasure_id: str, *, timeout_s: float) -> Erasure:
        """Return a receipt that says nothing of other collections."""
        found = await super().erasure(erasure_id, timeout_s=timeout_s)
        names = [part.collection.rpartition("/")[2] for part in found.parts]
        if not all(map(self._grants.covers_collection, names)):
            raise NotFound("there is no erasure with this id")
        return found

    @contextmanager
    def _path(self, name: str) -> Iterator[str]:
        with super()._path(name) as path:
            if not self._grants.covers_collection(name):
                raise not_found(path)
            yield path

    def _covered(self, models: Sequence[str]) -> Sequence[str]:
        return [model for model in models if self._grants.covers_model(model)]

    def _check(self, model: str) -> None:
        if not self._grants.covers_model(model):
            raise unknown_model()

    def _check_generators(self, request: GenerationRequest) -> None:
        """Raise ModelNotFound unless the model and all that may take its place are covered."""
        asked = request.model or default_of(super().generation_models)
        for model in (asked, *request.fallbacks):
            self._check(model)
