"""An HNSW graph over a row store: few comparisons per search, for collections that fit in memory.

While it is built it has its own copy of the rows; then it reads the row store's. It is not made by
`faiss.index_factory`, whose graphs own their rows for good.

Source: Malkov and Yashunin, TPAMI 2020.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.stores.accelerators import AcceleratorKind, GoOn, proceed
from deployments.stores.faiss_views import RowView, faiss

NUM_LINKS = 16
"""Links per node; twice as many on the ground level: 128 bytes a row."""

EF_CONSTRUCTION = 80
"""Nodes looked at to place one."""

MAX_EF_SEARCH = 4096

BATCH_ROWS = 4096

NUM_COMPARED = 64
"""Rows read in order in the time that one more of `ef_search` takes.

Source: at 200,000 × 384, `ef_search` 64 takes 0.33 ms and reading all 15 ms.
"""


class GraphIndex:
    """An `Accelerator` whose effort is `ef_search`."""

    kind: AcceleratorKind = "hnsw"

    def __init__(self, index: Any, num_trained: int, effort: int = 64) -> None:
        self._index = index
        self._view: RowView | None = None
        self._num_bytes, self._num_rows = _num_bytes(index), int(index.ntotal)
        self.num_trained = num_trained
        self.effort = effort

    def __len__(self) -> int:
        """Return how many rows, from the first on, are in the graph."""
        return self._num_rows

    @property
    def num_bytes(self) -> int:
        """Return the bytes of links and levels."""
        return self._num_bytes

    @property
    def max_effort(self) -> int:
        """Return the greatest useful `ef_search`."""
        return min(MAX_EF_SEARCH, len(self))

    @classmethod
    def build(cls, view: RowView, go_on: GoOn) -> "GraphIndex":
        """Return a graph of a view's rows; raises Abandoned."""
        index = faiss.IndexHNSW(view.codec.empty(), NUM_LINKS)
        index.hnsw.efConstruction = EF_CONSTRUCTION
        return cls(_grown(index, view, go_on), len(view))

    def extended(self, view: RowView, go_on: GoOn) -> "GraphIndex":
        """Return a copy with the view's further rows; raises Abandoned."""
        writer = faiss.VectorIOWriter()
        faiss.write_index(self._index, writer, faiss.IO_FLAG_SKIP_STORAGE)
        reader = faiss.VectorIOReader()
        reader.data.swap(writer.data)
        index = faiss.read_index(reader)
        del reader, writer
        return type(self)(_grown(index, view, go_on), self.num_trained, self.effort)

    def attach(self, view: RowView | None) -> None:
        """Read rows from the row store as it is now; None lets go of its memory."""
        self._view = view
        self._index.storage = None if view is None else view.index

    def propose(
        self, query: NDArray[np.float32], size: int, effort: int, selector: Any
    ) -> NDArray[np.int64]:
        """Return about `size` rows near the query among those that a FAISS selector lets pass."""
        parameters = faiss.SearchParametersHNSW(sel=selector, efSearch=max(effort, size))
        found: NDArray[np.int64] = self._index.search(query[np.newaxis], size, params=parameters)[
            1
        ][0]
        return found[found >= 0]

    def cost(self, effort: int) -> float:
        """Return how many rows could be read exactly in the time of a search."""
        return NUM_COMPARED * effort

    def save(self, path: Path) -> None:
        """Write the graph without the rows."""
        faiss.write_index(self._index, str(path), faiss.IO_FLAG_SKIP_STORAGE)

    @classmethod
    def load(cls, path: Path, num_trained: int, effort: int) -> "GraphIndex":
        """Read what `save` wrote."""
        return cls(faiss.read_index(str(path)), num_trained, effort)


def _grown(index: Any, view: RowView, go_on: GoOn) -> Any:
    """Add those rows of a view that a graph does not have yet, and leave it without rows."""
    first = int(index.ntotal)
    rows = view.codec.empty()
    rows.codes.resize(len(view.codes))  # room for all, so that the rows exist twice and not thrice
    held = first * view.codec.code_size
    if held:
        faiss.memcpy(rows.codes.data(), faiss.swig_ptr(view.codes), held)
    rows.codes.resize(held)
    rows.ntotal = first
    index.storage = rows
    for start in range(first, len(view), BATCH_ROWS):
        proceed(go_on)
        index.add(view.vectors(slice(start, start + BATCH_ROWS)))
    index.storage = None
    return index


def _num_bytes(index: Any) -> int:
    graph = index.hnsw
    return int(graph.neighbors.size() * 4 + graph.offsets.size() * 8 + graph.levels.size() * 4)
