"""A deterministic reranker without weights, so that the whole system can be exercised anywhere.

A text's score grows with the share of the query's words that it holds. A token is a word without
white space in it, or 16 characters of a longer one; its id spells it out.
"""

import re
from collections.abc import Sequence

import numpy as np

from deployments.config import RerankerArgs
from deployments.engines.reranking.engine import BatchedReranker
from deployments.engines.reranking.model import Pair, PairModel
from deployments.types import Vectors

MAX_TOKENS = 256

_TOKEN = re.compile(r"\S{1,16}")
_SPECIAL = 0


class FakePairTokenizer:
    """Splits at white space, and long words after every 16 characters."""

    num_special = 3

    def pairs(self, query: str, texts: Sequence[str]) -> list[Pair]:
        """Return the query with each text, spelt out as numbers, special ones around them."""
        first = [_SPECIAL, *map(_spell, _TOKEN.findall(query)), _SPECIAL]
        second = [[*map(_spell, _TOKEN.findall(text)), _SPECIAL] for text in texts]
        return [Pair([*first, *ids], [0] * len(first) + [1] * len(ids)) for ids in second]

    def forget(self) -> None:
        """Do nothing: it remembers nothing."""

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the code points of each token."""
        return [match.span() for match in _TOKEN.finditer(text)]


class FakeReranker(BatchedReranker):
    """Counts shared words."""

    def load(self, args: RerankerArgs) -> PairModel:
        """Return the fake model; there is nothing to load, whatever the arguments say."""
        return PairModel(FakePairTokenizer(), _score, MAX_TOKENS)


def _spell(token: str) -> int:
    return int.from_bytes(token.casefold().encode("utf-8", "surrogatepass"), "big")


def _score(pairs: Sequence[Pair]) -> Vectors:
    return np.array([[8 * _share(pair) - 4] for pair in pairs], np.float32)


def _share(pair: Pair) -> float:
    """Return which part of the query's distinct words the text holds."""
    words: tuple[set[int], set[int]] = (set(), set())
    for token, kind in zip(pair.ids, pair.kinds, strict=True):
        words[kind].add(token)
    query = words[0] - {_SPECIAL}
    return len(query & words[1]) / len(query) if query else 0.0
