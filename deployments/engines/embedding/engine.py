"""The engine that all embedders share: texts cut into segments, and a vector for each.

Queries and documents are tokenised on two threads, so that neither waits for the other. A subclass
says how its model is loaded.
"""

import asyncio
from collections.abc import Sequence
from functools import partial

import numpy as np

from deployments.config import EmbedderArgs
from deployments.engines.embedding.model import Model, TokenIds
from deployments.engines.texts.engine import TextEngine
from deployments.engines.texts.segmentation import Segmenter
from deployments.errors import EngineFailed
from deployments.types import EmbeddedText, Segment, Vectors

MIN_SEGMENT_TOKENS = 16
"""A smaller segment could fail to hold one character with the special tokens around it."""

_LONG_TEXT = 10_000
"""Characters of a text that would keep queries waiting, so it takes the documents' thread."""


class BatchedEmbedder(TextEngine[EmbedderArgs, Model, TokenIds]):
    """An `EmbeddingEngine` on top of a blocking model."""

    kind = "embedding"

    def __init__(self, args: EmbedderArgs) -> None:
        super().__init__(args)
        self._document_thread = self._thread("documents")

    def compute(self, model: Model, items: Sequence[TokenIds]) -> Vectors:
        """Return the vector of each sequence."""
        return model.encode(items)

    @property
    def dim(self) -> int:
        """Return the length of a vector."""
        return self._model.dim

    @property
    def max_tokens(self) -> int:
        """Return the most tokens (special ones included) that one segment may have, ≤ 512."""
        return min(self._args.segment_tokens or self._model.max_tokens, self._model.max_tokens)

    async def start(self) -> None:
        """Load the weights.

        Raises:
            EngineFailed: the model cannot be loaded.
        """
        if 0 < self._args.segment_tokens < MIN_SEGMENT_TOKENS:
            raise EngineFailed(f"segment_tokens must be 0 or at least {MIN_SEGMENT_TOKENS}")
        await super().start()

    async def embed(self, texts: Sequence[str]) -> tuple[Vectors, list[int]]:
        """Return one vector per text, in order, and each text's number of tokens."""
        is_long = any(len(text) > _LONG_TEXT for text in texts)
        thread = self._document_thread if is_long else self._text_thread
        pieces = await self._tokenize(texts, self._pieces, thread)
        vectors = await self._vectors([sequence for text in pieces for sequence in text])
        means, start = np.empty((len(texts), self.dim), np.float32), 0
        for row, text in enumerate(pieces):
            means[row] = _mean(vectors[start : start + len(text)], [len(part) for part in text])
            start += len(text)
        return means, [sum(map(len, text)) for text in pieces]

    async def embed_documents(
        self, texts: Sequence[str], overlap_tokens: int | None = None
    ) -> list[EmbeddedText]:
        """Segment each text and embed the segments; None: they overlap as configured."""
        overlap = self._args.overlap_tokens if overlap_tokens is None else overlap_tokens
        work = partial(self._segments, self._segmenter(overlap))
        segmented = await self._tokenize(texts, work, self._document_thread)
        vectors = await self._vectors([ids for _, text in segmented for ids in text])
        documents, start = [], 0
        for segments, _ in segmented:
            rows = vectors[start : start + len(segments)].copy()
            documents.append(EmbeddedText(tuple(segments), rows))
            start += len(segments)
        return documents

    async def segment(self, text: str) -> list[Segment]:
        """Return the segments of a text, in order; their spans leave out only white space."""
        segmenter = self._segmenter(self._args.overlap_tokens)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._document_thread, segmenter.segment, text)

    def _segmenter(self, overlap_tokens: int) -> Segmenter:
        return Segmenter(self._model.tokenizer, self.max_tokens, overlap_tokens)

    def _pieces(self, texts: Sequence[str]) -> list[Sequence[TokenIds]]:
        """Return the token ids of each text; of a text over the limit, those of its segments."""
        encoded, segmenter = self._model.tokenizer.encode(texts), self._segmenter(0)
        return [
            [ids] if len(ids) <= self.max_tokens else self._encode(text, segmenter.segment(text))
            for text, ids in zip(texts, encoded, strict=True)
        ]

    def _segments(
        self, segmenter: Segmenter, texts: Sequence[str]
    ) -> list[tuple[list[Segment], Sequence[TokenIds]]]:
        segmented = [segmenter.segment(text) for text in texts]
        pairs = zip(texts, segmented, strict=True)
        return [(segments, self._encode(text, segments)) for text, segments in pairs]

    def _encode(self, text: str, segments: Sequence[Segment]) -> Sequence[TokenIds]:
        return self._model.tokenizer.encode([text[part.start : part.end] for part in segments])

    async def _vectors(self, sequences: Sequence[TokenIds]) -> Vectors:
        if not sequences:
            return np.empty((0, self.dim), np.float32)
        return await self._batcher.submit(sequences)


def _mean(vectors: Vectors, weights: Sequence[int]) -> Vectors:
    """Return the normalised mean, float32[dim], weighted by tokens."""
    if len(vectors) == 1:
        first: Vectors = vectors[0]
        return first
    mean = np.average(vectors, axis=0, weights=weights)
    norm = float(np.linalg.norm(mean))
    # Opposite vectors may cancel; the first segment is then as good an answer as any.
    return (mean / norm).astype(np.float32) if norm > 1e-6 else vectors[0]
