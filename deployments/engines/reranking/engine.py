"""The engine that all rerankers share: texts cut beside their query, and a score for each.

Pairs are made on one thread and scored on others, so that the event loop stays free. A subclass
says how its model is loaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from deployments.config import RerankerArgs
from deployments.engines.reranking.model import Pair, PairModel, PairTokenizer
from deployments.engines.texts.engine import TextEngine
from deployments.engines.texts.segmentation import Segmenter
from deployments.errors import ContextTooLong, EngineFailed
from deployments.types import Relevance, Vectors


@dataclass(frozen=True, slots=True)
class _Beside:
    """The tokens of texts that share their room with a query."""

    tokenizer: PairTokenizer
    num_special: int

    def spans(self, text: str) -> Sequence[tuple[int, int]]:
        return self.tokenizer.spans(text)


class BatchedReranker(TextEngine[RerankerArgs, PairModel, Pair]):
    """A `RerankingEngine` on top of a blocking model."""

    kind = "reranking"

    def compute(self, model: PairModel, items: Sequence[Pair]) -> Vectors:
        """Return the logit of each pair."""
        return model.score(items)

    @property
    def max_tokens(self) -> int:
        """Return the most tokens (special ones included) of a query and a segment together."""
        own = self._model.max_tokens
        return min(self._args.max_pair_tokens or own, own)

    async def rerank(self, query: str, texts: Sequence[str]) -> Relevance:
        """Return one score in [0, 1] per text, in order; see `RerankingEngine.rerank`."""
        of_texts = await self._tokenize(texts, partial(self._pairs, query), self._text_thread)
        pairs = [pair for of_text in of_texts for pair in of_text]
        logits = await self._batcher.submit(pairs) if pairs else np.empty((0, 1), np.float32)
        if not np.isfinite(logits).all():
            raise EngineFailed("the reranking model returned a score that is no number")
        scores = _best(logits, [len(of_text) for of_text in of_texts])
        return Relevance(scores, sum(map(len, pairs)))

    def _pairs(self, query: str, texts: Sequence[str]) -> list[list[Pair]]:
        """Return the query with each segment of each text."""
        tokenizer = self._model.tokenizer
        beside = self._beside(tokenizer, query)
        segmenter = Segmenter(beside, self.max_tokens, self._args.overlap_tokens)
        pieces = [
            [text[part.start : part.end] for part in segmenter.segment(text)] for text in texts
        ]
        made = iter(tokenizer.pairs(query, [piece for of_text in pieces for piece in of_text]))
        return [[next(made) for _ in of_text] for of_text in pieces]

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


def _best(logits: Vectors, nums_pairs: Sequence[int]) -> tuple[float, ...]:
    """Return the score of each text's best segment, 0 where it has none.

    Args:
        logits: float32[n, 1], of the texts' pairs in order.
        nums_pairs: how many pairs each text has.
    """
    best = np.full(len(nums_pairs), -np.inf)
    owners = np.repeat(np.arange(len(nums_pairs)), nums_pairs)
    np.maximum.at(best, owners, logits[:, 0].astype(np.float64))
    with np.errstate(over="ignore"):
        scores = 1.0 / (1.0 + np.exp(-best))
    return tuple(scores.tolist())
