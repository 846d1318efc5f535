"""How many of the true neighbours an accelerator finds, on rows that are stored.

A neighbour counts by its score: of equally near rows any will do. A row is not its own neighbour.
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

Found = tuple[NDArray[np.int64], NDArray[np.float32]]

Search = Callable[[NDArray[np.float32]], Found]
"""Returns rows and scores for a query, best first, one more than `NUM_NEIGHBORS` if there are."""


class Sample:
    """Stored rows as queries, with the score of their last true neighbour."""

    def __init__(
        self, view: RowView, alive: NDArray[np.bool_], rows: NDArray[np.int64], go_on: GoOn
    ) -> None:
        """Find the true neighbours among the living rows by reading all; raises Abandoned."""
        self.rows = rows
        self.queries = np.array(view.vectors(rows))
        self._bounds = _last_scores(view, alive, rows, self.queries, go_on)

    def recall(self, search: Search) -> float:
        """Return the share of true neighbours that a search finds, in [0, 1]."""
        found = expected = 0
        for row, query, bounds in zip(self.rows, self.queries, self._bounds, strict=True):
            bound, count = bounds
            rows, scores = search(query)
            scores = scores[rows != row][:NUM_NEIGHBORS]
            near = scores >= bound - TOLERANCE * max(abs(bound), float(query @ query))
            found += min(int(np.count_nonzero(near)), count)
            expected += count
        return found / expected if expected else 1.0


def _last_scores(
    view: RowView,
    alive: NDArray[np.bool_],
    rows: NDArray[np.int64],
    queries: NDArray[np.float32],
    go_on: GoOn,
) -> list[tuple[float, int]]:
    best = np.full((len(rows), NUM_NEIGHBORS), -np.inf, dtype=np.float32)
    for start in range(0, len(view), BATCH_ROWS):
        proceed(go_on)
        vectors = view.vectors(slice(start, start + BATCH_ROWS))
        scores = _scores(queries, vectors, is_distance=view.codec.is_distance)
        scores[:, ~alive[start : start + len(vectors)]] = -np.inf
        inside = (rows >= start) & (rows < start + len(vectors))
        scores[inside, rows[inside] - start] = -np.inf
        both = np.concatenate([best, scores], axis=1)
        best = -np.partition(-both, NUM_NEIGHBORS - 1, axis=1)[:, :NUM_NEIGHBORS]
    counts = np.isfinite(best).sum(axis=1)
    least = np.where(np.isfinite(best), best, np.inf).min(axis=1)
    return [(float(bound), int(count)) for bound, count in zip(least, counts, strict=True)]


def _scores(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], *, is_distance: bool
) -> NDArray[np.float32]:
    products: NDArray[np.float32] = queries @ vectors.T
    if not is_distance:
        return products
    squares = (vectors**2).sum(axis=1) + (queries**2).sum(axis=1)[:, np.newaxis]
    distances: NDArray[np.float32] = squares - 2 * products
    return -distances
