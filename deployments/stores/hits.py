"""Ranked chunks, before their text is fetched: order, ties, and fusion of two rankings."""

from collections.abc import Callable, Sequence
from typing import NamedTuple


class Hit(NamedTuple):
    """A chunk by its number in the log, and its score; higher is better."""

    number: int
    score: float
    cosine: float | None = None


def nearest(search: Callable[[int], list[Hit]], limit: int, total: int) -> list[Hit]:
    """Return the best `limit` hits, equal scores in the order of the log.

    An index cuts a run of equal scores anywhere; this widens the search until the run is whole, so
    that the answer depends on what is stored and not on how the index came about.

    Args:
        search: returns that many hits, best first, or fewer when there are no more.
        limit: how many hits are wanted, at least 1.
        total: how many there are at most.
    """
    size = min(limit + 1, total)
    while size > 0:
        hits = search(size)
        if len(hits) < size or size == total or hits[-1].score < hits[limit - 1].score:
            return sorted(hits, key=_order)[:limit]
        size = min(size * 4, total)
    return []


def fuse(rankings: Sequence[Sequence[Hit]], k: int) -> list[Hit]:
    """Return every hit of the rankings, once, by reciprocal rank fusion: Σ 1 / (k + rank).

    Equal sums, the rule when two rankings disagree on the first two, are ordered by cosine.

    Source: Cormack, Clarke and Büttcher, SIGIR 2009. Ranks start at 1.
    """
    scores: dict[int, float] = {}
    cosines: dict[int, float | None] = {}
    for ranking in rankings:
        for rank, hit in enumerate(ranking, start=1):
            scores[hit.number] = scores.get(hit.number, 0.0) + 1.0 / (k + rank)
            cosines[hit.number] = hit.cosine
    fused = [Hit(number, score, cosines[number]) for number, score in scores.items()]
    return sorted(fused, key=_order)


def _order(hit: Hit) -> tuple[float, float, int]:
    return (-hit.score, -(hit.cosine or 0.0), hit.number)
