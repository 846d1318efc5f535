"""Ranked chunks, before their text is fetched: order, ties, and fusion of two rankings."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import NamedTuple


class Hit(NamedTuple):
    """A chunk by its number in the log, and its score; higher is better."""

    number: int
    score: float
    cosine: float | None = None


def nearest(
    search: Callable[[int], list[Hit]],
    limit: int,
    total: int,
    *,
    size: int = 0,
    least: float = -math.inf,
    keep: Callable[[list[Hit]], list[Hit]] | None = None,
) -> list[Hit]:
    """Return the best `limit` hits, equal scores in the order of the log.

    An index cuts a run of equal scores anywhere; this widens the search until the run is whole, so
    that the answer depends on what is stored and not on how the index came about. It also widens
    it until enough hits are left of what `keep` leaves out.

    Args:
        search: returns that many hits, best first, or fewer when there are no more.
        limit: how many hits are wanted, at least 1.
        total: how many there are at most.
        size: how many to look at first, if more than `limit`.
        least: score below which no hit is wanted.
        keep: returns those hits of a ranking's beginning that are wanted, in their order.
    """
    size = min(max(limit + 1, size), total)
    while size > 0:
        hits = in_order(search(size))
        kept = keep(hits) if keep is not None else hits
        is_whole = len(hits) < size or size == total or hits[-1].score < least
        if is_whole or (len(kept) >= limit and hits[-1].score < kept[limit - 1].score):
            return [hit for hit in kept[:limit] if hit.score >= least]
        size = min(size * 4, total)
    return []


def first_of_each(hits: Iterable[Hit], owners: Iterable[int], limit: int) -> list[Hit]:
    """Return at most `limit` hits of each owner, the first ones."""
    seen: Counter[int] = Counter()
    kept = []
    for hit, owner in zip(hits, owners, strict=True):
        seen[owner] += 1
        if seen[owner] <= limit:
            kept.append(hit)
    return kept


def fuse(
    rankings: Sequence[Sequence[Hit]], k: int, weights: Sequence[float] = (1.0, 1.0)
) -> list[Hit]:
    """Return every hit of the rankings, once, by reciprocal rank fusion: Σ weight / (k + rank).

    Equal sums, the rule when two rankings disagree on the first two, are ordered by cosine.

    Source: Cormack, Clarke and Büttcher, SIGIR 2009. Ranks start at 1.
    """
    scores: dict[int, float] = {}
    cosines: dict[int, float | None] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        for rank, hit in enumerate(ranking, start=1):
            scores[hit.number] = scores.get(hit.number, 0.0) + weight / (k + rank)
            cosines[hit.number] = hit.cosine
    fused = [Hit(number, score, cosines[number]) for number, score in scores.items()]
    return in_order(fused)


def in_order(hits: Iterable[Hit]) -> list[Hit]:
    """Return hits best first; equal scores by cosine, then in the order of the log."""
    return sorted(hits, key=_order)


def _order(hit: Hit) -> tuple[float, float, int]:
    return (-hit.score, -(hit.cosine or 0.0), hit.number)


def distinct(rankings: Iterable[list[Hit]]) -> list[Hit]:
    """Return the first hit of each chunk, in the order of the rankings."""
    hits: dict[int, Hit] = {}
    for hit in chain.from_iterable(rankings):
        hits.setdefault(hit.number, hit)
    return list(hits.values())
