"""The graph as one tenant sees it: its own collections, under the names that it gave them.

Inside, a collection is addressed by its path (``stores/paths.py``). This is the only place that
makes paths of a caller's names, and names of paths again: routes get no other graph than this one.
So a foreign collection is one that does not exist, in every answer and to the byte.
"""

import dataclasses
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager

from deployments.errors import CollectionNotFound, RagError
from deployments.ingress.caching.answer_cache import AnswerCache
from deployments.ingress.caching.use import CacheUse
from deployments.ingress.entry import touch, touch_persons, touching
from deployments.ingress.graph import Graph
from deployments.stores.content import is_collection_name
from deployments.stores.paths import path_of
from deployments.types import (
    Alias,
    AnswerEvent,
    Basis,
    ClusterStatus,
    CollectionChanges,
    CollectionInfo,
    CollectionSettings,
    Document,
    DocumentInfo,
    EmbeddedText,
    Erasure,
    ErasureScope,
    Exported,
    GenerationRequest,
    Imported,
    IndexedDocument,
    IndexStats,
    LoadOrder,
    ModelKind,
    ModelState,
    Relevance,
    Retrieval,
    ScoredChunk,
    SearchRequest,
    StoredDocument,
    SwitchOrder,
    TuningOrder,
    TuningState,
    Vectors,
    VectorSpace,
)


class TenantGraph:
    """Every capability of a `Graph` that routes have; what each does, that class says."""

    def __init__(self, graph: Graph, tenant: str, answers: AnswerCache | None = None) -> None:
        self._graph = graph
        self._tenant = tenant
        self._answers = answers

    @property
    def generation_models(self) -> Sequence[str]:
        """Return the ids of the loaded generation models, the default one first."""
        return self._graph.generation_models

    @property
    def embedding_models(self) -> Sequence[str]:
        """Return the ids of the loaded embedding models, the default one first."""
        return self._graph.embedding_models

    @property
    def reranking_models(self) -> Sequence[str]:
        """Return the ids of what can rerank, the default first."""
        return self._graph.reranking_models

    async def resolve(self, model: str, kind: ModelKind) -> str:
        """Return the id of the very model behind an id or alias; of several, the main one."""
        return await self._graph.resolve(model, kind)

    async def load_model(self, order: LoadOrder) -> ModelState:
        """Have a model loaded; what is loaded stays as it is."""
        state = await self._graph.load_model(order)
        touch("model", state.id)
        return state

    async def reload_model(self, model: str) -> ModelState:
        """Have a version loaded again as it was before."""
        with touching("model", model):
            return await self._graph.reload_model(model)

    async def unload_model(self, model: str, *, force: bool) -> ModelState:
        """Have a model go once its requests have ended."""
        with touching("model", model):
            return await self._graph.unload_model(model, force=force)

    async def switch_model(self, order: SwitchOrder) -> Alias:
        """Point an alias at a ready model."""
        switched = await self._graph.switch_model(order)
        touch("alias", order.alias)
        touch("model", order.to)
        return switched

    async def model_state(self, model: str) -> ModelState:
        """Return what the registry says of a version now."""
        return await self._graph.model_state(model)

    async def model_status(self, *, timeout_s: float) -> ClusterStatus:
        """Return every model, replica and machine as it is now."""
        return await self._graph.model_status(timeout_s=timeout_s)

    async def begin_tuning(self, order: TuningOrder) -> TuningState:
        """Check an order for a fine-tuning, and queue it."""
        begun = await self._graph.begin_tuning(order)
        touch("tuning", begun.id)
        return begun

    async def tuning(self, tuning_id: str) -> TuningState:
        """Return how a fine-tuning is now."""
        with touching("tuning", tuning_id):
            return await self._graph.tuning(tuning_id)

    async def tunings(self, *, limit: int, after: str) -> list[TuningState]:
        """Return fine-tunings, the newest first; of those, the ones older than `after`."""
        return await self._graph.tunings(limit=limit, after=after)

    async def cancel_tuning(self, tuning_id: str) -> TuningState:
        """Have a fine-tuning end."""
        with touching("tuning", tuning_id):
            return await self._graph.cancel_tuning(tuning_id)

    async def delete_tuning(self, tuning_id: str) -> None:
        """Remove a fine-tuning that has ended, and what it made."""
        with touching("tuning", tuning_id):
            await self._graph.delete_tuning(tuning_id)

    async def generate(
        self, request: GenerationRequest, *, timeout_s: float, use: CacheUse | None = None
    ) -> AsyncGenerator[AnswerEvent]:
        """Yield the events of an answer from the model alone, kept ones as `use` says."""
        with touching("model", request.model):
            async with aclosing(self._events(request, None, timeout_s, use)) as events:
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
        """Yield the events of an answer from a collection, kept ones as `use` says."""
        with self._path(retrieval.collection) as path:
            inside = dataclasses.replace(retrieval, collection=path)
            async with aclosing(self._events(request, inside, timeout_s, use)) as events:
                async for event in events:
                    yield event
            touch("model", request.model)

    async def _events(
        self,
        request: GenerationRequest,
        retrieval: Retrieval | None,
        timeout_s: float,
        use: CacheUse | None,
    ) -> AsyncGenerator[AnswerEvent]:
        def compute(request: GenerationRequest) -> AsyncGenerator[AnswerEvent]:
            if retrieval is None:
                return self._graph.generate(request, timeout_s=timeout_s)  # type: ignore[return-value]
            return self._graph.answer(request, retrieval, timeout_s=timeout_s)  # type: ignore[return-value]

        answers, basis = self._answers, None
        if answers is not None and use is not None and not use.is_off:
            basis = await self._basis(request, retrieval, use, timeout_s)
            if basis is None:
                answers.bypass(use)
        if answers is None or use is None or basis is None:
            events = compute(request)
        else:
            pinned = dataclasses.replace(request, model=basis.model)
            key = answers.key(self._tenant, basis, pinned, retrieval)
            events = answers.events(key, use, lambda: compute(pinned), request.n)
        async with aclosing(events):
            async for event in events:
                yield event

    async def _basis(
        self,
        request: GenerationRequest,
        retrieval: Retrieval | None,
        use: CacheUse,
        timeout_s: float,
    ) -> Basis | None:
        if request.fallbacks:  # it is not known who answers, and a model that is down has no basis
            return None
        is_greedy_only = use.wish != "use"
        return await self._graph.basis(
            request, retrieval, is_greedy_only=is_greedy_only, timeout_s=timeout_s
        )

    async def embed(
        self, texts: Sequence[str], *, model: str, timeout_s: float
    ) -> tuple[Vectors, list[int]]:
        """Return one vector and the number of tokens per text."""
        with touching("model", model):
            return await self._graph.embed(texts, model=model, timeout_s=timeout_s)

    async def dim(self, model: str, *, timeout_s: float) -> int:
        """Return the length of an embedding model's vectors."""
        return await self._graph.dim(model, timeout_s=timeout_s)

    async def vectorize(
        self, texts: Sequence[str], *, model: str, overlap_tokens: int | None, timeout_s: float
    ) -> list[EmbeddedText]:
        """Return each text's segments and their vectors."""
        with touching("model", model):
            return await self._graph.vectorize(
                texts, model=model, overlap_tokens=overlap_tokens, timeout_s=timeout_s
            )

    async def space(self, collection: str, *, timeout_s: float) -> VectorSpace:
        """Return what a collection's vectors are now, or will be if indexing creates it."""
        with self._path(collection) as path:
            return await self._graph.space(path, timeout_s=timeout_s)

    async def index(
        self, collection: str, documents: Sequence[Document], *, timeout_s: float
    ) -> list[IndexedDocument]:
        """Segment, embed and store documents."""
        touch_persons("document", (document.id for document in documents))
        with self._path(collection) as path:
            return await self._graph.index(path, documents, timeout_s=timeout_s)

    async def search(
        self, request: SearchRequest, *, timeout_s: float, is_reranked: bool = False
    ) -> list[ScoredChunk]:
        """Return matching chunks, best first."""
        with self._path(request.collection) as path:
            inside = dataclasses.replace(request, collection=path)
            return await self._graph.search(inside, timeout_s=timeout_s, is_reranked=is_reranked)

    async def rerank(
        self, query: str, texts: Sequence[str], *, model: str | None = None, timeout_s: float
    ) -> Relevance:
        """Return one score in [0, 1] per text, in order."""
        with touching("model", model or ""):
            return await self._graph.rerank(query, texts, model=model, timeout_s=timeout_s)

    async def collections(self, *, timeout_s: float) -> list[CollectionInfo]:
        """Return every collection of the tenant, by name."""
        found = await self._graph.collections(self._tenant, timeout_s=timeout_s)
        return [self._own(info) for info in found]

    async def create_collection(
        self, name: str, settings: CollectionSettings, *, timeout_s: float
    ) -> CollectionInfo:
        """Create a collection; raises Conflict when the tenant has one of this name."""
        with self._path(name) as path:
            info = await self._graph.create_collection(path, settings, timeout_s=timeout_s)
        return self._own(info)

    async def collection(self, name: str, *, timeout_s: float) -> CollectionInfo:
        """Return one collection."""
        with self._path(name) as path:
            return self._own(await self._graph.collection(path, timeout_s=timeout_s))

    async def index_stats(self, name: str, *, timeout_s: float) -> list[IndexStats]:
        """Return what each replica that has the collection in memory holds of its vectors."""
        with self._path(name) as path:
            return await self._graph.index_stats(path, timeout_s=timeout_s)

    async def update_collection(
        self, name: str, changes: CollectionChanges, *, timeout_s: float
    ) -> CollectionInfo:
        """Change a collection's settings, and return it."""
        with self._path(name) as path:
            info = await self._graph.update_collection(path, changes, timeout_s=timeout_s)
        return self._own(info)

    async def delete_collection(self, name: str, *, timeout_s: float) -> None:
        """Delete a collection with all its documents."""
        with self._path(name) as path:
            await self._graph.delete_collection(path, timeout_s=timeout_s)

    async def documents(
        self, collection: str, *, limit: int, after: str, timeout_s: float
    ) -> list[DocumentInfo]:
        """Return up to `limit` documents by id, those with an id greater than `after`."""
        with self._path(collection) as path:
            return await self._graph.documents(path, limit=limit, after=after, timeout_s=timeout_s)

    async def document(
        self, collection: str, document_id: str, *, timeout_s: float
    ) -> StoredDocument:
        """Return a stored document with its text."""
        touch_persons("document", [document_id])
        with self._path(collection) as path:
            return await self._graph.document(path, document_id, timeout_s=timeout_s)

    async def delete_document(self, collection: str, document_id: str, *, timeout_s: float) -> None:
        """Delete a document."""
        touch_persons("document", [document_id])
        with self._path(collection) as path:
            await self._graph.delete_document(path, document_id, timeout_s=timeout_s)

    async def export_collection(
        self, collection: str, *, timeout_s: float
    ) -> AsyncGenerator[bytes]:
        """Yield a Parquet file with one state of a collection."""
        with self._path(collection) as path:
            async with aclosing(self._graph.export_collection(path, timeout_s=timeout_s)) as pieces:
                async for piece in pieces:
                    yield piece

    async def export_to(self, collection: str, uri: str, *, timeout_s: float) -> Exported:
        """Write a collection to a file in the tenant's folder below a root."""
        with self._path(collection) as path:
            exported = await self._graph.export_to(path, uri, timeout_s=timeout_s)
            return dataclasses.replace(exported, collection=collection)

    async def import_collection(
        self, collection: str, source: bytes | str, *, max_document_bytes: int, timeout_s: float
    ) -> Imported:
        """Store the rows of a Parquet file, or of one in the tenant's folder below a root."""
        with self._path(collection) as path:
            imported = await self._graph.import_collection(
                path, source, max_document_bytes=max_document_bytes, timeout_s=timeout_s
            )
            return dataclasses.replace(imported, collection=collection)

    async def erase(self, scope: ErasureScope, *, wait_s: float, timeout_s: float) -> Erasure:
        """Erase documents of the tenant's."""
        inside = dataclasses.replace(scope, tenant=self._tenant)
        touch_persons("subject", [scope.subject] if scope.subject else ())
        touch_persons("document", scope.document_ids or ())
        if scope.collection is None:
            erasure = await self._graph.erase(inside, wait_s=wait_s, timeout_s=timeout_s)
        else:
            with self._path(scope.collection) as path:
                inside = dataclasses.replace(inside, collection=path)
                erasure = await self._graph.erase(inside, wait_s=wait_s, timeout_s=timeout_s)
        touch("erasure", erasure.id)
        return erasure

    async def erasure(self, erasure_id: str, *, timeout_s: float) -> Erasure:
        """Return a receipt of the tenant's."""
        with touching("erasure", erasure_id):
            return await self._graph.erasure(self._tenant, erasure_id, timeout_s=timeout_s)

    @contextmanager
    def _path(self, name: str) -> Iterator[str]:
        """Lend the path of the tenant's collection; errors that name it say the caller's name.

        Raises:
            CollectionNotFound: no collection can have this name: it may be a path, too.
        """
        if not is_collection_name(name):
            raise CollectionNotFound("no collection can have this name")
        path = path_of(self._tenant, name)
        try:
            with touching("collection", name):
                yield path
        except RagError as error:
            error.message = error.message.replace(path, name)
            raise

    def _own(self, info: CollectionInfo) -> CollectionInfo:
        """Return what a collection is, under the tenant's name for it."""
        return dataclasses.replace(info, name=info.name.rpartition("/")[2])
