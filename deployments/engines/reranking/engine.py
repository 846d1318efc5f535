"""The engine that all rerankers share: tokenizer, segmentation, batcher and model put together.

Pairs are made on one thread and scored on others, so that the event loop stays free. A subclass
says how its model is loaded.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from deployments.config import RerankerArgs
from deployments.engines.embedding.batching import TokenBatcher
from deployments.engines.embedding.segmentation import Segmenter
from deployments.engines.reranking.model import Pair, PairModel, PairTokenizer
from deployments.errors import ContextTooLong, EngineFailed, RagError
from deployments.types import Relevance, Vectors

_TEXTS_PER_CALL = 64
"""Texts tokenised before another caller gets its turn on the thread."""


@dataclass(frozen=True, slots=True)
class _Beside:
    """The tokens of texts that share their room with a query."""

    tokenizer: PairTokenizer
    num_special: int

    def spans(self, text: str) -> Sequence[tuple[int, int]]:
        return self.tokenizer.spans(text)


class BatchedReranker(ABC):
    """A `RerankingEngine` on top of a blocking model."""

    def __init__(self, args: RerankerArgs) -> None:
        self._args = args
        self._text_thread = ThreadPoolExecutor(1, "reranking-text")
        self._loader = ThreadPoolExecutor(1, "reranking-loader")
        self._workers: ThreadPoolExecutor | None = None
        self._loaded: tuple[PairModel, TokenBatcher] | None = None

    @abstractmethod
    def load(self, args: RerankerArgs) -> PairModel:
        """Load the model; called on a thread of its own.

        Raises:
            EngineFailed: the model cannot be loaded.
        """

    @property
    def max_tokens(self) -> int:
        """Return the most tokens (special ones included) of a query and a segment together."""
        own = self._running()[0].max_tokens
        return min(self._args.max_pair_tokens or own, own)

    async def start(self) -> None:
        """Load the weights.

        Raises:
            EngineFailed: the model cannot be loaded.
        """
        if self._loaded is not None:
            return
        loop = asyncio.get_running_loop()
        try:
            model = await loop.run_in_executor(self._loader, self.load, self._args)
        except RagError:
            raise
        except Exception as error:
            # Loaders raise anything for a damaged folder; the caller needs one typed error.
            raise EngineFailed(
                f"the reranking model does not load: {type(error).__name__}"
            ) from error
        self._workers = ThreadPoolExecutor(
            model.num_workers, "reranking-model", initializer=model.prepare_worker
        )
        batcher = TokenBatcher(
            lambda pairs: model.score(pairs),  # type: ignore[arg-type]  # it gets what we submit
            self._workers,
            num_workers=model.num_workers,
            max_batch_tokens=self._args.max_batch_tokens,
            max_waiting_tokens=self._args.max_waiting_tokens,
        )
        self._loaded = (model, batcher)

    async def rerank(self, query: str, texts: Sequence[str]) -> Relevance:
        """Return one score in [0, 1] per text, in order; see `RerankingEngine.rerank`."""
        _, batcher = self._running()
        batcher.admit(0)
        loop = asyncio.get_running_loop()
        owners: list[int] = []
        pairs: list[Pair] = []
        for start in range(0, len(texts), _TEXTS_PER_CALL):
            some = texts[start : start + _TEXTS_PER_CALL]
            made = await loop.run_in_executor(self._text_thread, self._pairs, query, some)
            owners += [start + owner for owner, _ in made]
            pairs += [pair for _, pair in made]
        logits = await batcher.submit(pairs) if pairs else np.empty((0, 1), np.float32)
        if not np.isfinite(logits).all():
            raise EngineFailed("the reranking model returned a score that is no number")
        scores = _best(logits, owners, len(texts))
        return Relevance(scores, sum(map(len, pairs)))

    def num_tokens_waiting(self) -> int:
        """Return how many tokens are queued."""
        return 0 if self._loaded is None else self._loaded[1].num_tokens_waiting()

    async def stop(self) -> None:
        """Free the weights; waiting callers get EngineFailed."""
        if self._loaded is not None:
            await self._loaded[1].stop()
            self._loaded = None
        self._text_thread.shutdown(wait=False, cancel_futures=True)
        self._loader.shutdown(wait=False)
        if self._workers is not None:
            self._workers.shutdown(wait=False, cancel_futures=True)

    def _running(self) -> tuple[PairModel, TokenBatcher]:
        if self._loaded is None:
            raise EngineFailed("the reranking engine is not running")
        return self._loaded

    def _pairs(self, query: str, texts: Sequence[str]) -> list[tuple[int, Pair]]:
        """Return the query with each segment of each text, and which text the segment is of."""
        tokenizer = self._running()[0].tokenizer
        beside = self._beside(tokenizer, query)
        segmenter = Segmenter(beside, self.max_tokens, self._args.overlap_tokens)
        pieces: list[tuple[int, str]] = []
        for owner, text in enumerate(texts):
            for part in segmenter.segment(text):
                pieces.append((owner, text[part.start : part.end]))
        pairs = tokenizer.pairs(query, [piece for _, piece in pieces])
        return [(owner, pair) for (owner, _), pair in zip(pieces, pairs, strict=True)]

    def _beside(self, tokenizer: PairTokenizer, query: str) -> _Beside:
        num_query = len(tokenizer.spans(query))
        if num_query > self.max_tokens // 2:
            error = ContextTooLong(
                f"the query has {num_query} tokens; "
                f"the reranking model takes {self.max_tokens // 2} beside a document"
            )
            error.param = "query"
            raise error
        return _Beside(tokenizer, tokenizer.num_special + num_query)


def _best(logits: Vectors, owners: Sequence[int], num_texts: int) -> tuple[float, ...]:
    """Return the score of each text's best segment, 0 where it has none."""
    best = np.full(num_texts, -np.inf)
    np.maximum.at(best, np.asarray(owners, dtype=np.intp), logits[:, 0].astype(np.float64))
    with np.errstate(over="ignore"):
        scores = 1.0 / (1.0 + np.exp(-best))
    return tuple(scores.tolist())
