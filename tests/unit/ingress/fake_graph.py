"""A deterministic graph in memory: echoes prompts, embeds by hashing, searches by shared words."""

import asyncio
import dataclasses
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import numpy as np

from deployments.errors import (
    CollectionNotFound,
    Conflict,
    DocumentNotFound,
    ModelNotFound,
    NotFound,
    RagError,
)
from deployments.stores.paths import parts_of
from deployments.types import (
    PLACES,
    Alias,
    AliasTarget,
    AnswerEvent,
    Basis,
    ClusterStatus,
    CollectionChanges,
    CollectionInfo,
    CollectionSettings,
    Delta,
    Document,
    DocumentInfo,
    EmbeddedText,
    ErasedPart,
    Erasure,
    ErasureScope,
    Exported,
    Finished,
    GenerationRequest,
    GpuVitals,
    Imported,
    IndexedDocument,
    IndexStats,
    LoadOrder,
    ModelKind,
    ModelState,
    ModelStatus,
    NodeVitals,
    Place,
    PromptAccepted,
    Relevance,
    ReplicaVitals,
    Retrieval,
    RowError,
    ScoredChunk,
    SearchRequest,
    Segment,
    Sources,
    StoredDocument,
    SwitchOrder,
    TokenLogprob,
    TuningOrder,
    TuningState,
    Vectors,
    VectorSpace,
)

DIM = 8
DIMS = {"fake-embedder": DIM, "small-embedder": 3}
SETTINGS = CollectionSettings(embedding_model="fake-embedder", dim=DIM)
"""Of collections that are just put into `stored`."""

NOW = "2026-01-02T03:04:05.000000Z"


class FakeGraph:
    """Answers `echo: <prompt>` word by word; the attributes make it fail, wait or stop early."""

    generation_models = ("fake-model", "second-model")
    embedding_models = ("fake-embedder", "small-embedder")
    reranking_models = ("fake-reranker", "late-fusion")

    def __init__(self) -> None:
        self.scopes: list[tuple[ErasureScope, float]] = []
        self.erasures: dict[str, Erasure] = {}
        self.is_erased = True
        self.is_maintained = False
        self.stored: dict[str, dict[str, Document]] = {}  # by path, as all that has a name here
        self.settings: dict[str, CollectionSettings] = {}
        self.changes: list[CollectionChanges] = []
        self.requests: list[GenerationRequest] = []
        self.searches: list[SearchRequest] = []
        self.reranks: list[tuple[str, list[str], str | None]] = []
        self.retrievals: list[Retrieval] = []
        self.sources: list[bytes | str] = []
        self.overlaps: list[int | None] = []
        self.error: BaseException | None = None
        self.error_after = 0
        self.delay_s = 0.0
        self.words: list[str] | None = None
        self.is_cut = False
        self.num_running = 0
        self.num_holders = 0
        self.num_closed = 0
        self.parts = {"generator": True, "retriever": True}
        self.orders: list[LoadOrder | SwitchOrder | tuple[str, bool]] = []
        self.load = "first"
        self.tuning_orders: list[TuningOrder] = []
        self.tuning_states: list[TuningState] = []
        self.states: dict[str, list[ModelState]] = {}
        """What the registry says of each model, one state a time it is asked, the last for ever."""

    async def resolve(self, model: str, kind: ModelKind) -> str:
        known = {
            "generation": self.generation_models,
            "embedding": self.embedding_models,
            "reranking": self.reranking_models,
        }
        if model not in known[kind]:
            error = ModelNotFound("no loaded model or collection has this id; see GET /v1/models")
            error.param = "model"
            raise error
        return model

    async def basis(
        self,
        request: GenerationRequest,
        retrieval: Retrieval | None,
        *,
        is_greedy_only: bool,
        timeout_s: float,
    ) -> Basis | None:
        model = await self.resolve(request.model or self.generation_models[0], "generation")
        if is_greedy_only and request.sampling.temperature != 0:
            return None
        if retrieval is None:
            return Basis(model, self.load)
        info = await self.collection(retrieval.collection, timeout_s=timeout_s)
        return Basis(model, f"{self.load} {info}")

    async def load_model(self, order: LoadOrder) -> ModelState:
        self._fail()
        self.orders.append(order)
        return await self.model_state(f"{order.name}@{order.version or '1'}")

    async def reload_model(self, model: str) -> ModelState:
        self._fail()
        self.orders.append((model, True))
        return await self.model_state(model)

    async def unload_model(self, model: str, *, force: bool) -> ModelState:
        self._fail()
        self.orders.append((model, force))
        return await self.model_state(model)

    async def switch_model(self, order: SwitchOrder) -> Alias:
        self._fail()
        self.orders.append(order)
        return Alias(order.alias, (AliasTarget(order.to, order.canary_percent),))

    async def model_state(self, model: str) -> ModelState:
        if model not in self.states:
            raise ModelNotFound("no model with this id was ever loaded")
        states = self.states[model]
        return states.pop(0) if len(states) > 1 else states[0]

    async def model_status(self, *, timeout_s: float) -> ClusterStatus:
        self._fail()
        node = NodeVitals("here", 2, 0.5, 10, 20, (GpuVitals(0, "fast", 0.9, 1, 2),))
        replica = ReplicaVitals(7, 100, node, 1, 2, 3.5, 0.25)
        [state] = self.states["m@1"]
        own = ModelStatus(
            id="fake-model",
            kind="generation",
            device="cpu",
            precision="auto",
            engine="fake",
            min_replicas=None,
            max_replicas=None,
            replicas=(replica, replica),
            num_wanted=2,
        )
        loaded = dataclasses.replace(own, id="m@1", replicas=(), num_wanted=1, state=state)
        alias = Alias("chat", (AliasTarget("m@1", 90), AliasTarget("fake-model", 10)))
        return ClusterStatus((own, loaded), (alias,), (node,))

    async def begin_tuning(self, order: TuningOrder) -> TuningState:
        self._fail()
        self.tuning_orders.append(order)
        return self.tuning_states[0]

    async def tuning(self, tuning_id: str) -> TuningState:
        self._fail()
        found = [one for one in self.tuning_states if one.id == tuning_id]
        if not found:
            raise NotFound("there is no tuning with this id")
        return found[0]

    async def tunings(self, *, limit: int, after: str) -> list[TuningState]:
        self._fail()
        return [one for one in self.tuning_states if not after or one.id < after][:limit]

    async def cancel_tuning(self, tuning_id: str) -> TuningState:
        return dataclasses.replace(await self.tuning(tuning_id), phase="cancelling")

    async def delete_tuning(self, tuning_id: str) -> None:
        self.tuning_states.remove(await self.tuning(tuning_id))

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error

    async def generate(
        self, request: GenerationRequest, *, timeout_s: float, sources: Sources | None = None
    ) -> AsyncIterator[AnswerEvent]:
        self.requests.append(request)
        self.num_running += 1
        try:
            if request.model:
                await self.resolve(request.model, "generation")
            if self.error is not None and self.error_after == 0:
                raise self.error
            yield PromptAccepted(5, num_passages=len(sources.chunks) if sources else 0)
            if sources is not None:
                yield sources
            for number, word in enumerate(self._words(request)):
                if self.error is not None and number == self.error_after:
                    raise self.error
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                for index in range(request.n):
                    yield Delta(word, index, self._logprobs(request, word))
            if self.is_cut:
                return
            for index in range(request.n):
                yield Finished("stop", len(self._words(request)) + 1, index)
        finally:
            self.num_running -= 1
            self.num_closed += 1

    def _words(self, request: GenerationRequest) -> list[str]:
        if self.words is not None:
            return self.words
        prompt = request.prompt
        if request.messages:
            prompt = request.messages[-1].content
        if request.prompt_token_ids is not None:
            prompt = " ".join(map(str, request.prompt_token_ids))
        return ["echo:", *(f" {word}" for word in (prompt or "")[:200].split(" "))]

    def _logprobs(self, request: GenerationRequest, word: str) -> tuple[TokenLogprob, ...]:
        if request.sampling.logprobs is None:
            return ()
        top = tuple(
            TokenLogprob(i, f"t{i}".encode(), float("-inf") if i else -0.5)
            for i in range(request.sampling.logprobs)
        )
        return (TokenLogprob(7, word.encode(), -0.25, top),)

    async def answer(
        self, request: GenerationRequest, retrieval: Retrieval, *, timeout_s: float
    ) -> AsyncIterator[AnswerEvent]:
        self.retrievals.append(retrieval)
        query = SearchRequest(collection=retrieval.collection, query="x", top_k=3)
        chunks = await self.search(query, timeout_s=timeout_s)
        events = self.generate(request, timeout_s=timeout_s, sources=Sources(tuple(chunks)))
        try:
            async for event in events:
                yield event
        finally:
            await events.aclose()

    async def embed(
        self, texts: Sequence[str], *, model: str, timeout_s: float
    ) -> tuple[Vectors, list[int]]:
        self._fail()
        vectors = np.stack([_vector(text, DIMS[model]) for text in texts])
        return vectors, [len(text.split()) for text in texts]

    async def vectorize(
        self, texts: Sequence[str], *, model: str, overlap_tokens: int | None, timeout_s: float
    ) -> list[EmbeddedText]:
        self.overlaps.append(overlap_tokens)
        vectors, tokens = await self.embed(texts, model=model, timeout_s=timeout_s)
        return [
            EmbeddedText((Segment(0, len(text), count),), vector[None])
            for text, count, vector in zip(texts, tokens, vectors, strict=True)
        ]

    async def index(
        self, collection: str, documents: Sequence[Document], *, timeout_s: float
    ) -> list[IndexedDocument]:
        self._fail()
        known = self._collection(collection)
        results = []
        for document in documents:
            status = "replaced" if document.id in known else "created"
            known[document.id] = document
            results.append(IndexedDocument(document.id, status, 1))
        return results

    async def rerank(
        self, query: str, texts: Sequence[str], *, model: str | None = None, timeout_s: float
    ) -> Relevance:
        """Score texts by the share of their words that the query has."""
        self._fail()
        self.reranks.append((query, list(texts), model))
        return Relevance(tuple(_share(query, text) for text in texts), len(texts) * 3)

    async def search(
        self, request: SearchRequest, *, timeout_s: float, is_reranked: bool = False
    ) -> list[ScoredChunk]:
        found = await self._search(request)
        if not is_reranked:
            return found
        scores = (await self.rerank(request.query, [c.text for c in found], timeout_s=1)).scores
        scored = [
            dataclasses.replace(chunk, score=score, rerank_score=score)
            for chunk, score in zip(found, scores, strict=True)
        ]
        return sorted(scored, key=lambda chunk: -chunk.score)

    async def _search(self, request: SearchRequest) -> list[ScoredChunk]:
        self._fail()
        self.searches.append(request)
        return [
            ScoredChunk(
                chunk_id=f"{document.id}:0",
                document_id=document.id,
                title=document.title,
                text=document.text[:20],
                start=0,
                end=len(document.text[:20]),
                score=0.5,
                cosine=0.5,
                metadata=document.metadata,
            )
            for document in list(self._collection(request.collection).values())[: request.top_k]
        ]

    async def dim(self, model: str, *, timeout_s: float) -> int:
        self._fail()
        return DIMS[model]

    async def space(self, collection: str, *, timeout_s: float) -> VectorSpace:
        self._fail()
        settings = self.settings.get(collection, SETTINGS)
        return VectorSpace(settings.embedding_model, settings.dim, settings.metric)

    async def collections(self, tenant: str, *, timeout_s: float) -> list[CollectionInfo]:
        self._fail()
        own = [path for path in sorted(self.stored) if parts_of(path)[0] == tenant]
        return [self._info(path) for path in own]

    async def create_collection(
        self, name: str, settings: CollectionSettings, *, timeout_s: float
    ) -> CollectionInfo:
        if name in self.stored:
            raise Conflict(f"collection {name} exists")
        self.stored[name] = {}
        self.settings[name] = settings
        return self._info(name)

    async def index_stats(self, name: str, *, timeout_s: float) -> list[IndexStats]:
        self._collection(name)
        held = IndexStats(
            kind="flat", storage="fp32", num_rows=1, num_indexed=0, num_dead=0, num_bytes=32
        )
        return [held] * self.num_holders

    async def update_collection(
        self, name: str, changes: CollectionChanges, *, timeout_s: float
    ) -> CollectionInfo:
        self._collection(name)
        self.changes.append(changes)
        if changes.description is not None:
            old = self.settings.get(name, SETTINGS)
            self.settings[name] = dataclasses.replace(old, description=changes.description)
        return self._info(name)

    async def collection(self, name: str, *, timeout_s: float) -> CollectionInfo:
        self._collection(name)
        return self._info(name)

    async def delete_collection(self, name: str, *, timeout_s: float) -> None:
        self._collection(name)
        del self.stored[name]

    async def documents(
        self, collection: str, *, limit: int, after: str, timeout_s: float
    ) -> list[DocumentInfo]:
        documents = sorted(self._collection(collection).values(), key=lambda one: one.id)
        return [
            DocumentInfo(
                id=one.id,
                title=one.title,
                metadata=one.metadata,
                subject=one.subject,
                num_chunks=1,
                created_at=NOW,
                updated_at=NOW,
            )
            for one in documents
            if one.id > after
        ][:limit]

    async def document(
        self, collection: str, document_id: str, *, timeout_s: float
    ) -> StoredDocument:
        document = self._collection(collection).get(document_id)
        if document is None:
            raise DocumentNotFound("the collection holds no document with this id")
        return StoredDocument(document, 1, NOW, NOW)

    async def delete_document(self, collection: str, document_id: str, *, timeout_s: float) -> None:
        await self.document(collection, document_id, timeout_s=timeout_s)
        del self.stored[collection][document_id]

    async def export_collection(
        self, collection: str, *, timeout_s: float
    ) -> AsyncGenerator[bytes]:
        """Yield the documents' ids, one a piece."""
        self.num_running += 1
        try:
            self._fail()
            for number, key in enumerate(self._collection(collection)):
                if number == self.error_after and number:
                    raise RagError
                yield key.encode()
                await asyncio.sleep(self.delay_s)
            yield b"end"
        finally:
            self.num_running -= 1

    async def export_to(self, collection: str, uri: str, *, timeout_s: float) -> Exported:
        self._fail()
        return Exported(collection, uri, len(self._collection(collection)), 0, 0)

    async def import_collection(
        self, collection: str, source: bytes | str, *, max_document_bytes: int, timeout_s: float
    ) -> Imported:
        """Take a document per line; refuse what is longer than allowed, leave out `erased`."""
        self._fail()
        self.sources.append(source)
        lines = source.splitlines() if isinstance(source, bytes) else []
        bad = [i for i, line in enumerate(lines) if len(line) > max_document_bytes]
        return Imported(
            collection=collection,
            num_rows=len(lines),
            num_created=len(lines) - len(bad) - lines.count(b"erased"),
            num_replaced=0,
            num_unchanged=0,
            num_chunks=0,
            num_failed=len(bad),
            num_suppressed=lines.count(b"erased"),
            errors=tuple(RowError(i, f"row{i}", "too large", "text") for i in bad),
        )

    async def erase(self, scope: ErasureScope, *, wait_s: float, timeout_s: float) -> Erasure:
        self.scopes.append((scope, wait_s))
        if scope.collection is not None:
            self._collection(scope.collection)
        erased = [ErasedPart("docs", "col_1", 2, 5)] if scope.tenant == "default" else []
        places: dict[Place, str | None] = dict.fromkeys(PLACES, NOW if self.is_erased else None)
        self.erasures["era_" + "0" * 32] = erasure = Erasure(
            id="era_" + "0" * 32,
            tenant=scope.tenant,
            kind=scope.kind,
            parts=tuple(erased),
            places=places,
            requested_at=NOW,
            completed_at=NOW if self.is_erased else None,
        )
        return erasure

    async def erasure(self, tenant: str, erasure_id: str, *, timeout_s: float) -> Erasure:
        erasure = self.erasures.get(erasure_id)
        if erasure is None or erasure.tenant != tenant:
            raise NotFound("there is no erasure with this id")
        return erasure

    async def maintain(self) -> None:
        self.is_maintained = True
        await asyncio.Event().wait()

    async def health(self, *, timeout_s: float) -> dict[str, bool]:
        if isinstance(self.error, RagError):
            raise self.error
        return self.parts

    def _collection(self, name: str) -> dict[str, Document]:
        if name not in self.stored:
            raise CollectionNotFound(f"collection {name!r} does not exist")
        return self.stored[name]

    def _info(self, name: str) -> CollectionInfo:
        settings = self.settings.get(name, SETTINGS)
        return CollectionInfo(
            name=name,
            **{one.name: getattr(settings, one.name) for one in dataclasses.fields(settings)},
            num_documents=len(self.stored[name]),
            num_chunks=len(self.stored[name]),
            sequence=len(self.stored[name]),
            created_at=NOW,
        )


def _share(query: str, text: str) -> float:
    words = text.lower().split()
    return sum(word in query.lower().split() for word in words) / len(words) if words else 0.0


def _vector(text: str, dim: int) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest()[:dim], dtype=np.uint8)
    vector = digest.astype(np.float32) + 1
    return vector / np.linalg.norm(vector)
