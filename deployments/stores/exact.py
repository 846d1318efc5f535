"""Search that reads every row that counts.

Source: a flat FAISS index reads every vector, 15 ms for 200,000 of 384 dimensions on one core.
"""

import numpy as np
from numpy.typing import NDArray

from deployments.stores.faiss_views import RowView, faiss
from deployments.stores.selection import LivingRows, Selection

MAX_GATHERED = 16_384
"""Selected rows up to which they are read one by one, not by passing over all rows."""

Found = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Rows and their scores."""


def exactly(
    view: RowView, query: NDArray[np.float32], size: int, selected: Selection | LivingRows
) -> Found:
    """Return the best rows of a selection in no order, `size` of them if it has so many."""
    if isinstance(selected, Selection) and len(selected) <= MAX_GATHERED:
        rows = selected.rows()
    else:
        rows = view.search(query, size, faiss.SearchParameters(sel=selected.selector()))
    return best_of(rows, view.scores(query, rows), size)


def best_of(rows: NDArray[np.int64], scores: NDArray[np.float32], size: int) -> Found:
    """Return the `size` rows with the highest scores, in no order."""
    if len(rows) <= size:
        return rows, scores
    best = np.argpartition(-scores, size - 1)[:size]
    return rows[best], scores[best]
