"""The collections as a graph sees them: text in, stored and found chunks out.

Vectors go from Embedder to Retriever as an un-awaited response: our code in the ingress never holds
them. It does not know prompts or answers (``rag.py``).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.types import (
    CollectionInfo,
    CollectionSettings,
    Document,
    EmbeddedText,
    IndexedDocument,
    Relevance,
    ScoredChunk,
    SearchRequest,
    StoredDocument,
    Vectors,
)
from graphs.handles import Deadline, call, plainly_pickled
from graphs.reranking import Reranking, num_candidates
from graphs.shards import Shards

INDEX_BATCH_CHARS = 1_000_000


class Corpus:
    """Embedding, indexing and search over handle calls. Contract: ``ingress/graph.py``."""

    def __init__(
        self,
        embedding_model: str,
        embedder: DeploymentHandle[Any],
        shards: Shards,
        reranker: DeploymentHandle[Any] | None = None,
        reranking_model: str | None = None,
    ) -> None:
        self._embedding_model = embedding_model
        self._embedder = plainly_pickled(embedder)
        self._shards = shards
        self._reranker = plainly_pickled(reranker) if reranker else None
        self._reranking = Reranking(self._embedder, self._reranker, reranking_model)
        # Made once: `handle.method` makes another handle each time.
        self._embed = self._embedder.options(method_name="embed")
        self._dim: int | None = None

    @property
    def embedding_models(self) -> Sequence[str]:
        """Return the ids of the loaded embedding models, the default one first."""
        return (self._embedding_model,)

    async def embed(self, texts: Sequence[str], *, timeout_s: float) -> tuple[Vectors, list[int]]:
        """Return one vector and the number of tokens per text."""
        return await call(self._embed.remote(list(texts)), Deadline(timeout_s))

    async def dim(self, *, timeout_s: float) -> int:
        """Return the length of the default embedding model's vectors."""
        if self._dim is None:
            vectors, _ = await self.embed(["dimension"], timeout_s=timeout_s)
            self._dim = vectors.shape[1]
        return self._dim

    async def vectorize(
        self, texts: Sequence[str], *, overlap_tokens: int | None, timeout_s: float
    ) -> list[EmbeddedText]:
        """Return each text's segments and their vectors; None: they overlap as configured."""
        response = self._embedder.embed_documents.remote(list(texts), overlap_tokens)
        return await call(response, Deadline(timeout_s))

    async def index(
        self, collection: str, documents: Sequence[Document], *, timeout_s: float
    ) -> list[IndexedDocument]:
        """Segment, embed and store documents; the next search of any replica sees them.

        Large calls are stored in batches, each of them a transaction: after an error the documents
        of earlier batches are stored, and repeating the call is safe.
        """
        deadline = Deadline(timeout_s)
        indexed: list[IndexedDocument] = []
        for batch in _batches(documents):
            texts = [document.text for document in batch if document.embedded is None]
            embedded: Any = self._embedder.embed_documents.remote(texts) if texts else []
            args = (collection, batch, embedded, self._embedding_model)
            indexed += await self._shards.ask("upsert", *args, deadline=deadline)
        return indexed

    @property
    def reranking_models(self) -> Sequence[str]:
        """Return the ids of what can rerank, the default first."""
        return self._reranking.models

    async def rerank(
        self, query: str, texts: Sequence[str], *, model: str | None = None, timeout_s: float
    ) -> Relevance:
        """Return one score in [0, 1] per text, in order; None is the default model."""
        return await self._reranking.rerank(query, texts, Deadline(timeout_s), model)

    async def search(
        self, request: SearchRequest, *, timeout_s: float, is_reranked: bool = False
    ) -> list[ScoredChunk]:
        """Return matching chunks, best first; reranked, their `score` is the `rerank_score`."""
        deadline = Deadline(timeout_s)
        if is_reranked:
            return await self._search_reranked(request, deadline)
        return await self._search(request, deadline)

    async def collections(self, *, timeout_s: float) -> list[CollectionInfo]:
        """Return every collection, by name."""
        return await self._retrieve("collections", timeout_s)

    async def create_collection(
        self, name: str, description: str, *, timeout_s: float
    ) -> CollectionInfo:
        """Create a collection; raises Conflict when the name is taken."""
        settings = CollectionSettings(
            description=description,
            embedding_model=self._embedding_model,
            dim=await self.dim(timeout_s=timeout_s),
        )
        return await self._retrieve("create_collection", timeout_s, name, settings)

    async def collection(self, name: str, *, timeout_s: float) -> CollectionInfo:
        """Return one collection."""
        return await self._retrieve("collection", timeout_s, name)

    async def delete_collection(self, name: str, *, timeout_s: float) -> None:
        """Delete a collection with all its documents."""
        await self._retrieve("delete_collection", timeout_s, name)

    async def document(
        self, collection: str, document_id: str, *, timeout_s: float
    ) -> StoredDocument:
        """Return a stored document with its text."""
        return await self._retrieve("document", timeout_s, collection, document_id)

    async def delete_document(self, collection: str, document_id: str, *, timeout_s: float) -> None:
        """Delete a document; the next search of any replica no longer finds it."""
        await self._retrieve("delete_document", timeout_s, collection, document_id)

    async def _retrieve(self, method: str, timeout_s: float, *args: Any) -> Any:
        return await self._shards.ask(method, *args, deadline=Deadline(timeout_s))

    async def _search_reranked(
        self, request: SearchRequest, deadline: Deadline
    ) -> list[ScoredChunk]:
        """Search for more than is wanted, and keep the best after reranking.

        A bound on the cosine, even one that nothing is below, makes a lexical search compute it.
        """
        min_score = -1.0 if request.min_score is None else request.min_score
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
            embedded = None
        else:
            embedded = self._embed.remote([request.query])
        return await self._shards.search(request, embedded, self._embedding_model, deadline)


def _batches(documents: Sequence[Document]) -> list[list[Document]]:
    """Split documents so that one handle call carries about `INDEX_BATCH_CHARS` at most."""
    batches: list[list[Document]] = []
    room = 0
    for document in documents:
        if not batches or len(document.text) > room:
            batches.append([])
            room = INDEX_BATCH_CHARS
        batches[-1].append(document)
        room -= len(document.text)
    return batches
