"""Reranking over handles: a cross-encoder where one is deployed, else late fusion (``fusion.py``).

It knows neither collections nor HTTP; the graph hands it texts, or chunks that a search found.
"""

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from ray.serve.handle import DeploymentHandle

from deployments.errors import ModelNotFound
from deployments.types import MAX_RERANKED, EmbeddedText, Relevance, ScoredChunk, Vectors
from graphs.fusion import fused
from graphs.handles import Deadline, call

LATE_FUSION = "late-fusion"
"""The model id of late fusion, which every installation has."""

CANDIDATES_PER_RESULT = 4


def num_candidates(top_k: int) -> int:
    """Return how many chunks are reranked so that the best `top_k` are kept."""
    return max(top_k, min(CANDIDATES_PER_RESULT * top_k, MAX_RERANKED))


class Reranking:
    """Scores texts with the configured model, or any of the others by name."""

    def __init__(
        self,
        embedder: DeploymentHandle[Any] | None,
        reranker: DeploymentHandle[Any] | None = None,
        model: str | None = None,
    ) -> None:
        self._embed_documents = embedder and embedder.options(
            method_name="documents_apart", stream=True
        )
        self._rerank = (
            reranker.options(method_name="rerank_apart", stream=True) if reranker else None
        )
        self.models: tuple[str, ...] = (LATE_FUSION,) if embedder else ()
        if reranker is not None and model is not None:
            self.models = (model, *self.models)

    async def rerank(
        self, query: str, texts: Sequence[str], deadline: Deadline, model: str | None = None
    ) -> Relevance:
        """Return one score in [0, 1] per text, in order; None is the first model."""
        if self._rerank is not None and model != LATE_FUSION:
            return await call(self._rerank.remote(query, list(texts)), deadline)
        return await self._fuse(query, texts, deadline)

    async def best(
        self, query: str, chunks: Sequence[ScoredChunk], top_k: int, deadline: Deadline
    ) -> list[ScoredChunk]:
        """Return the `top_k` chunks that answer the query best, with their `rerank_score`.

        Late fusion takes the cosines that the search computed, so it costs no further call.
        """
        texts = [chunk.text for chunk in chunks]
        cosines = [chunk.cosine for chunk in chunks if chunk.cosine is not None]
        if self._rerank is None and len(cosines) == len(chunks):
            scores = await asyncio.to_thread(fused, query, texts, cosines)
        else:
            scores = (await self.rerank(query, texts, deadline)).scores if texts else ()
        scored = [
            dataclasses.replace(chunk, score=score, rerank_score=score)
            for chunk, score in zip(chunks, scores, strict=True)
        ]
        return sorted(scored, key=lambda chunk: -chunk.score)[:top_k]

    async def _fuse(self, query: str, texts: Sequence[str], deadline: Deadline) -> Relevance:
        """Embed query and texts, and take each text's best segment for its cosine."""
        if self._embed_documents is None:
            raise ModelNotFound("this installation runs without a model that reranks")
        response = self._embed_documents.remote([query, *texts])
        asked, *embedded = await call(response, deadline)
        vector = _mean(asked)
        cosines = [float((one.vectors @ vector).max(initial=0.0)) for one in embedded]
        scores = await asyncio.to_thread(fused, query, texts, cosines)
        num_tokens = sum(part.num_tokens for one in (asked, *embedded) for part in one.segments)
        return Relevance(scores, num_tokens)


def _mean(query: EmbeddedText) -> Vectors:
    """Return the query's vector, float32[dim]: the normalised mean of its segments'."""
    weights = np.array([segment.num_tokens for segment in query.segments], np.float32)
    total: Vectors = weights @ query.vectors
    return total / max(float(np.linalg.norm(total)), 1e-6)
