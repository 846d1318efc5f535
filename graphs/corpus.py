"""The collections as a graph sees them: text in, stored and found chunks out.

Vectors go from Embedder to Retriever as an un-awaited response: our code in the ingress never holds
them. It does not know prompts or answers (``rag.py``).
"""

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.errors import CollectionNotFound, Conflict
from deployments.types import (
    Document,
    EmbeddedText,
    IndexedDocument,
    Relevance,
    ScoredChunk,
    SearchRequest,
    Vectors,
    VectorSpace,
)
from graphs.batches import batches
from graphs.collections import Collections
from graphs.embedders import Embedders
from graphs.handles import MAX_WAIT_S, Deadline, call, plainly_pickled
from graphs.reranking import Reranking, num_candidates
from graphs.resting import call_awake
from graphs.shards import Shards


class Corpus(Collections):
    """Embedding, indexing and search over handle calls. Contract: ``ingress/graph.py``."""

    def __init__(
        self,
        embedders: Embedders,
        shards: Shards,
        reranker: DeploymentHandle[Any] | None = None,
        reranking_model: str | None = None,
        max_wait_s: float = MAX_WAIT_S,
    ) -> None:
        super().__init__(shards, max_wait_s)
        self._embedders = embedders
        self._reranker = plainly_pickled(reranker) if reranker else None
        default = embedders.handle(embedders.default) if embedders.models else None
        self._reranking = Reranking(default, self._reranker, reranking_model)

    @property
    def embedding_models(self) -> Sequence[str]:
        """Return the ids of the loaded embedding models, the default one first."""
        return self._embedders.models

    async def embed(
        self, texts: Sequence[str], *, model: str, timeout_s: float
    ) -> tuple[Vectors, list[int]]:
        """Return one vector and the number of tokens per text."""
        return await call(self._embedders.texts(model, texts), self._deadline(timeout_s))

    async def dim(self, model: str, *, timeout_s: float) -> int:
        """Return the length of an embedding model's vectors."""
        return await self._embedders.dim(model, self._deadline(timeout_s))

    async def vectorize(
        self, texts: Sequence[str], *, model: str, overlap_tokens: int | None, timeout_s: float
    ) -> list[EmbeddedText]:
        """Return each text's segments and their vectors; None: they overlap as configured."""
        response = self._embedders.documents(model, texts, overlap_tokens)
        return await call(response, self._deadline(timeout_s))

    async def space(self, collection: str, *, timeout_s: float) -> VectorSpace:
        """Return what a collection's vectors are now, or will be if indexing creates it."""
        deadline = self._deadline(timeout_s)
        try:
            return await self._spaces.fresh(collection, self._asking(deadline))
        except CollectionNotFound:
            return await self._default_space(deadline)

    async def index(
        self, collection: str, documents: Sequence[Document], *, timeout_s: float
    ) -> list[IndexedDocument]:
        """Segment, embed and store documents; the next search of any replica sees them.

        Large calls are stored in batches, each of them a transaction: after an error the documents
        of earlier batches are stored, and repeating the call is safe.
        """
        deadline = self._deadline(timeout_s)
        indexed: list[IndexedDocument] = []
        for batch in batches(documents):
            indexed += await self._stored(collection, batch, deadline)
        return indexed

    @property
    def reranking_models(self) -> Sequence[str]:
        """Return the ids of what can rerank, the default first."""
        return self._reranking.models

    async def rerank(
        self, query: str, texts: Sequence[str], *, model: str | None = None, timeout_s: float
    ) -> Relevance:
        """Return one score in [0, 1] per text, in order; None is the default model."""
        return await self._reranking.rerank(query, texts, self._deadline(timeout_s), model)

    async def search(
        self, request: SearchRequest, *, timeout_s: float, is_reranked: bool = False
    ) -> list[ScoredChunk]:
        """Return matching chunks, best first; reranked, their `score` is the `rerank_score`."""
        deadline = self._deadline(timeout_s)
        if is_reranked:
            return await self._search_reranked(request, deadline)
        return await self._search(request, deadline)

    async def _forget(self, deadline: Deadline) -> None:
        """Have every replica of the models here keep nothing of the texts that it has read."""
        handles = [self._embedders.handle(model) for model in self._embedders.models]
        if self._reranker is not None:
            handles.append(self._reranker)
        await asyncio.gather(*(call_awake(handle, "forget", deadline) for handle in handles))

    async def _search_reranked(
        self, request: SearchRequest, deadline: Deadline
    ) -> list[ScoredChunk]:
        """Search for more than is wanted, and keep the best after reranking.

        A bound on the cosine, even one that nothing is below, makes a lexical search compute it;
        where no model here can, late fusion computes cosines of its own.
        """
        min_score = request.min_score
        if min_score is None:
            space = await self._spaces.of(request.collection, self._asking(deadline))
            min_score = -1.0 if self._embedders.runs(space.embedding_model) else None
        wanted = request.offset + request.top_k
        wider = dataclasses.replace(
            request, offset=0, top_k=num_candidates(wanted), min_score=min_score
        )
        found = await self._search(wider, deadline)
        best = await self._reranking.best(request.query, found, wanted, deadline)
        return best[request.offset :]

    async def _search(self, request: SearchRequest, deadline: Deadline) -> list[ScoredChunk]:
        is_lexical = request.mode == "lexical" and request.min_score is None
        if is_lexical or request.vector is not None:
            return await self._shards.search(request, None, None, deadline)

        async def found(space: VectorSpace) -> list[ScoredChunk]:
            model = space.embedding_model
            embedded = self._embedders.query(model, [request.query])
            return await self._shards.search(request, embedded, model, deadline)

        return await self._spaces.within(request.collection, self._asking(deadline), found)

    async def _stored(
        self, collection: str, documents: list[Document], deadline: Deadline
    ) -> list[IndexedDocument]:
        """Store one batch; vectors that came ready are not stored in another space than theirs."""
        texts = [document.text for document in documents if document.embedded is None]
        ask = self._asking(deadline)

        async def store(space: VectorSpace, may_create: bool = False) -> list[IndexedDocument]:
            model = space.embedding_model
            embedded: list[EmbeddedText] = []
            if texts:
                embedded = await call(self._embedders.documents(model, texts), deadline)
            args = (collection, documents, embedded, model, space.metric, may_create)
            return await self._shards.ask("upsert", *args, deadline=deadline)

        try:
            if len(texts) == len(documents):
                return await self._spaces.within(collection, ask, store)
            return await store(await self._spaces.of(collection, ask))
        except CollectionNotFound:
            self._spaces.forget(collection)
            return await store(await self._default_space(deadline), may_create=True)
        except Conflict:
            self._spaces.forget(collection)
            raise

    async def _default_space(self, deadline: Deadline) -> VectorSpace:
        model = self._embedders.default
        return VectorSpace(model, await self._embedders.dim(model, deadline))
