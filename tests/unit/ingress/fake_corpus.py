"""The fake's corpus: embeds by hashing, scores by shared words, finds the first of a collection."""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from deployments.types import (
    Document,
    EmbeddedText,
    IndexedDocument,
    Relevance,
    ScoredChunk,
    SearchRequest,
    Segment,
    Vectors,
    VectorSpace,
)
from tests.unit.ingress.fake_collections import SETTINGS, FakeCollections
from tests.unit.ingress.fake_models import DIMS


class FakeCorpus(FakeCollections):
    """Embeds and searches the collections, and notes the searches."""

    def __init__(self) -> None:
        super().__init__()
        self.searches: list[SearchRequest] = []
        self.reranks: list[tuple[str, list[str], str | None]] = []
        self.overlaps: list[int | None] = []

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


def _share(query: str, text: str) -> float:
    words = text.lower().split()
    return sum(word in query.lower().split() for word in words) / len(words) if words else 0.0


def _vector(text: str, dim: int) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest()[:dim], dtype=np.uint8)
    vector = digest.astype(np.float32) + 1
    return vector / np.linalg.norm(vector)
