"""Inverted lists of compressed vectors (IVF-PQ): little memory, for collections beyond a graph's.

What it proposes is scored again with the vectors themselves, so codes may be short.

Source: Jégou, Douze and Schmid, TPAMI 2011.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.stores.accelerators import AcceleratorKind, GoOn, proceed
from deployments.stores.faiss_views import RowView, faiss

BATCH_ROWS = 8192

TRAINING_ROWS_PER_LIST = 48
"""Sample of k-means. Source: FAISS asks for 39 at least and uses no more than 256."""

OVERSAMPLING = 20
"""Rows proposed for each that is wanted. Source: 10 let no effort go beyond recall 0.986."""

NUM_CODE_VALUES = 256

MAX_KEPT_PARAMETERS = 64
"""Efforts whose parameters are kept: callers may ask for any."""

CODES_PER_ROW = 1.2
"""Codes that are compared in the time of one fp32 vector.

Source: at 200,000 × 384, each further list of 98 codes takes 6 µs, a row read exactly 76 ns.
"""


class ListsIndex:
    """An `Accelerator` whose effort is `nprobe`. Vectors are padded by zeros to fit the codes."""

    kind: AcceleratorKind = "ivfpq"

    def __init__(self, index: Any, dim: int, num_trained: int, effort: int = 16) -> None:
        self._index = index
        self._dim = dim
        self._num_rows, self._num_lists = int(index.ntotal), int(index.nlist)
        self._padded_dim = int(index.d)
        self._parameters: dict[int, Any] = {}  # of searches among all rows
        self.num_trained = num_trained
        self.effort = min(effort, self._num_lists)

    def __len__(self) -> int:
        """Return how many rows, from the first on, are in the lists."""
        return self._num_rows

    @property
    def num_bytes(self) -> int:
        """Return the bytes of codes, row numbers, centroids and tables."""
        index = self._index
        codes = int(index.ntotal) * (int(index.code_size) + 8)
        centroids = int(index.nlist) * int(index.d) * 4 + NUM_CODE_VALUES * int(index.d) * 4
        return codes + centroids + int(index.precomputed_table.size()) * 4

    @property
    def max_effort(self) -> int:
        """Return the number of lists."""
        return self._num_lists

    @classmethod
    def build(cls, view: RowView, go_on: GoOn) -> "ListsIndex":
        """Train on a sample of a view's rows, and add all of them; raises Abandoned."""
        dim, num_lists = view.codec.dim, lists_for(len(view))
        width = code_width(dim)
        padded = -(-dim // width) * width
        metric = faiss.METRIC_L2 if view.codec.is_distance else faiss.METRIC_INNER_PRODUCT
        name = f"IVF{num_lists},PQ{padded // width}np"  # polysemous codes take minutes to learn
        index = faiss.index_factory(padded, name, metric)
        index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1
        index.pq.cp.max_points_per_centroid = TRAINING_ROWS_PER_LIST
        index.cp.max_points_per_centroid = TRAINING_ROWS_PER_LIST
        index.use_precomputed_table = -1  # it would take more memory than the codes
        sample = np.linspace(0, len(view) - 1, _num_sampled(len(view), num_lists)).astype(np.int64)
        proceed(go_on)
        index.train(_padded(view.vectors(sample), padded))
        return cls(_filled(index, view, go_on), dim, len(view))

    def extended(self, view: RowView, go_on: GoOn) -> "ListsIndex":
        """Return a copy with the view's further rows; raises Abandoned."""
        index = _filled(faiss.clone_index(self._index), view, go_on)
        return type(self)(index, self._dim, self.num_trained, self.effort)

    def attach(self, view: RowView | None) -> None:
        """Do nothing: the lists hold what they compare."""

    def propose(
        self, query: NDArray[np.float32], size: int, effort: int, selector: Any
    ) -> NDArray[np.int64]:
        """Return about `size` rows near the query among those that a FAISS selector lets pass."""
        parameters = self._parameters_for(min(effort, self._num_lists), selector)
        padded = _padded(query[np.newaxis], self._padded_dim)
        found: NDArray[np.int64] = self._index.search(
            padded, min(size * OVERSAMPLING, len(self)), params=parameters
        )[1][0]
        return found[found >= 0]

    def cost(self, effort: int) -> float:
        """Return how many rows could be read exactly in the time of a search."""
        return self._num_lists + self._num_rows * effort / self._num_lists / CODES_PER_ROW

    def _parameters_for(self, effort: int, selector: Any) -> Any:
        """Return FAISS's parameters; making them anew takes longer than reading a list."""
        if selector is not None:
            return faiss.SearchParametersIVF(sel=selector, nprobe=effort)
        kept = self._parameters.get(effort)
        if kept is None:
            kept = faiss.SearchParametersIVF(nprobe=effort)
            if len(self._parameters) < MAX_KEPT_PARAMETERS:
                self._parameters[effort] = kept
        return kept

    def save(self, path: Path) -> None:
        """Write lists and centroids."""
        faiss.write_index(self._index, str(path))

    @classmethod
    def load(cls, path: Path, dim: int, num_trained: int, effort: int) -> "ListsIndex":
        """Read what `save` wrote."""
        return cls(faiss.read_index(str(path)), dim, num_trained, effort)


def lists_for(num_rows: int) -> int:
    """Return how many lists to lay out: about 4 √n, a power of two, with 39 rows each at least.

    Source: FAISS's guidelines say 4 √n to 16 √n.
    """
    most = max(1, num_rows // 39)
    return int(2 ** min(round(np.log2(4 * max(num_rows, 1) ** 0.5)), int(np.log2(most))))


def code_width(dim: int) -> int:
    """Return how many dimensions one byte of a code stands for."""
    if dim < 16:
        return 1
    return 4 if dim < 128 else 8


def _num_sampled(num_rows: int, num_lists: int) -> int:
    return min(num_rows, max(num_lists, NUM_CODE_VALUES) * TRAINING_ROWS_PER_LIST)


def _filled(index: Any, view: RowView, go_on: GoOn) -> Any:
    for start in range(int(index.ntotal), len(view), BATCH_ROWS):
        proceed(go_on)
        batch = view.vectors(slice(start, start + BATCH_ROWS))
        index.add(_padded(batch, int(index.d)))
    return index


def _padded(vectors: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    missing = dim - vectors.shape[1]
    if not missing:
        return np.ascontiguousarray(vectors)
    return np.pad(vectors, ((0, 0), (0, missing)))
