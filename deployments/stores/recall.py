"""How many of the true neighbours an accelerator finds, on rows that are stored.

A neighbour counts by its score: of equally near rows any will do.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from deployments.stores.accelerators import GoOn, proceed
from deployments.stores.faiss_views import RowView

NUM_NEIGHBORS = 10

NUM_SAMPLED = 200
"""Rows asked for. Source: the standard error of 0.97 over 200 × 10 neighbours is below 0.01."""

TARGET = 0.98
"""Recall that the effort is raised to on a sample; another sample says what came of it."""

TOLERANCE = 1e-5
"""Share of a score's size that rounding may take from it: two orders of summation differ."""

BATCH_ROWS = 8192

Search = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Returns the scores of the `NUM_NEIGHBORS` best rows that are found for a query."""

NEIGHBORHOOD = 32
"""Nearest rows among which three are taken to make a query that is not stored."""


class Sample:
    """Queries as near to what is stored as a stored row is, and the score of the last neighbour."""

    def __init__(
        self, view: RowView, alive: NDArray[np.bool_], rows: NDArray[np.int64], go_on: GoOn
    ) -> None:
        """Make a query for each row, and find its true neighbours; raises Abandoned."""
        self.queries = _between(view, alive, rows, go_on)
        _, scores = _nearest(view, alive, self.queries, NUM_NEIGHBORS, go_on)
        self._counts = np.isfinite(scores).sum(axis=1)
        self._bounds = np.where(np.isfinite(scores), scores, np.inf).min(axis=1, initial=np.inf)

    def recall(self, search: Search) -> float:
        """Return the share of true neighbours that a search finds, in [0, 1]."""
        found = 0
        for query, bound, count in zip(self.queries, self._bounds, self._counts, strict=True):
            near = search(query) >= bound - TOLERANCE * max(abs(bound), float(query @ query))
            found += min(int(np.count_nonzero(near)), int(count))
        expected = int(self._counts.sum())
        return found / expected if expected else 1.0


def _between(
    view: RowView, alive: NDArray[np.bool_], rows: NDArray[np.int64], go_on: GoOn
) -> NDArray[np.float32]:
    """Return float32[len(rows), dim]: (a + b + c - d) / 2 of each row and three neighbours.

    That has the mean and the covariance of the rows around there, but is none of them. A stored
    row would be found too easily: the structure was built to lead from it to its neighbours.
    """
    stored = np.array(view.vectors(rows))
    near, scores = _nearest(view, alive, stored, NEIGHBORHOOD, go_on)
    order = np.argsort(-scores, axis=1)
    near = np.take_along_axis(near, order, axis=1)
    size = int(min(np.isfinite(scores).sum(axis=1), default=0))
    if size < 4:
        return stored
    b, c, d = (view.vectors(near[:, size * part // 4]) for part in (1, 2, 3))
    queries = (stored + b + c - d) / 2
    if view.codec.metric == "cosine":
        norms = np.linalg.norm(queries, axis=1, keepdims=True)
        queries = np.divide(queries, norms, out=stored.copy(), where=norms > 0)
    return np.ascontiguousarray(queries, dtype=np.float32)


def _nearest(
    view: RowView, alive: NDArray[np.bool_], queries: NDArray[np.float32], k: int, go_on: GoOn
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return rows and scores of the best `k`, in no order; -inf where there are not so many."""
    best = np.full((len(queries), k), -np.inf, dtype=np.float32)
    rows = np.zeros((len(queries), k), dtype=np.int64)
    for start in range(0, len(view), BATCH_ROWS):
        proceed(go_on)
        vectors = view.vectors(slice(start, start + BATCH_ROWS))
        scores = _scores(queries, vectors, is_distance=view.codec.is_distance)
        scores[:, ~alive[start : start + len(vectors)]] = -np.inf
        both = np.concatenate([best, scores], axis=1)
        chosen = np.argpartition(-both, k - 1, axis=1)[:, :k]
        best = np.take_along_axis(both, chosen, axis=1)
        known = np.take_along_axis(rows, np.minimum(chosen, k - 1), axis=1)
        rows = np.where(chosen < k, known, start + chosen - k)
    return rows, best


def _scores(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], *, is_distance: bool
) -> NDArray[np.float32]:
    products: NDArray[np.float32] = queries @ vectors.T
    if not is_distance:
        return products
    squares = (vectors**2).sum(axis=1) + (queries**2).sum(axis=1)[:, np.newaxis]
    distances: NDArray[np.float32] = squares - 2 * products
    return -distances
