"""The vectors of one collection in memory: exact search by inner product.

Rows are appended and never moved until `compact`; a mask says which of them count. The caller
keeps readers and writers apart.

Source: a flat FAISS index reads every vector, 15 ms for 200,000 of 384 dimensions on one core.
"""

import math
from collections.abc import Callable
from typing import Any

import faiss as typed_faiss
import numpy as np
from numpy.typing import NDArray

from deployments.stores.hits import Hit, nearest
from deployments.types import Vectors

faiss: Any = typed_faiss
"""FAISS without its type stubs, which know the C++ signatures but not what Python adds to them."""

MIN_DEAD_ROWS = 1024
"""Dead rows below which compaction is not worth the copy."""


class DenseIndex:
    """Chunk numbers and their vectors. Numbers grow from row to row, so lookup is a bisection."""

    def __init__(self, dim: int) -> None:
        self._index = faiss.IndexFlatIP(dim)
        self._numbers = np.empty(0, dtype=np.int64)
        self._mask = np.empty(0, dtype=np.uint8)  # one bit per row, least significant first
        self._num_alive = 0
        self._parameters: Any = None

    def __len__(self) -> int:
        """Return the number of chunks that a search can find."""
        return self._num_alive

    @property
    def num_bytes(self) -> int:
        """Return the bytes of all vectors held, dead rows included."""
        return int(self._index.ntotal) * int(self._index.d) * 4

    def stage(self, numbers: NDArray[np.int64], vectors: Vectors) -> None:
        """Append rows that no search finds until `show`; numbers must exceed all before."""
        self._index.add(np.ascontiguousarray(vectors, dtype=np.float32))
        self._numbers = np.concatenate([self._numbers, numbers])
        missing = (len(self._numbers) + 7) // 8 - len(self._mask)
        self._select(np.concatenate([self._mask, np.zeros(missing, dtype=np.uint8)]))

    def show(self, numbers: NDArray[np.int64]) -> None:
        """Let searches find these rows."""
        self._flip(numbers, alive=True)

    def hide(self, numbers: NDArray[np.int64]) -> None:
        """Take rows out of every later search; unknown numbers are ignored."""
        self._flip(numbers, alive=False)

    def _flip(self, numbers: NDArray[np.int64], *, alive: bool) -> None:
        bits = np.unpackbits(self._mask, bitorder="little")
        bits[self.positions(numbers)] = alive
        self._select(np.packbits(bits, bitorder="little"))
        self._num_alive = int(bits.sum())

    def _select(self, mask: NDArray[np.uint8]) -> None:
        """Take a mask, and make once what FAISS wants of it for each search."""
        self._mask = mask
        self._parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(mask))

    def positions(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of those numbers that are held, dead ones too."""
        rows = np.searchsorted(self._numbers, numbers)
        inside = rows < len(self._numbers)
        rows, numbers = rows[inside].astype(np.int64, copy=False), numbers[inside]
        held: NDArray[np.int64] = rows[self._numbers[rows] == numbers]
        return held

    def select(self, mask: NDArray[np.bool_]) -> "Selection":
        """Return those of the chunks that a search can find for which `mask` is true, bool[n].

        Args:
            mask: for every row in the order in which it was staged, as `compact` left it.
        """
        alive = np.unpackbits(self._mask, count=len(self._numbers), bitorder="little")
        return Selection(self._numbers, mask & alive.astype(np.bool_))

    def search(
        self,
        query: NDArray[np.float32],
        limit: int,
        among: "Selection | None" = None,
        *,
        least: float = -math.inf,
        keep: Callable[[list[Hit]], list[Hit]] | None = None,
    ) -> list[Hit]:
        """Return the `limit` nearest chunks, best first; equal scores in the order of the log.

        Args:
            query: float32[dim], L2-normalised.
            limit: at least 1.
            among: the chunks that count; None is all.
            least: cosine below which no hit is wanted.
            keep: as in `nearest`.
        """
        parameters = self._parameters if among is None else among.parameters
        total = self._num_alive if among is None else len(among)
        faiss.omp_set_num_threads(1)  # of this thread; one query is not worth waking others for

        def search(size: int) -> list[Hit]:
            scores, rows = self._index.search(query[np.newaxis], size, params=parameters)
            found = rows[0] >= 0
            numbers = self._numbers[rows[0][found]]
            cosines = _cosines(scores[0][found])
            return list(map(Hit, numbers.tolist(), cosines, cosines))

        return nearest(search, limit, total, least=least, keep=keep)

    def cosines(self, query: NDArray[np.float32], numbers: NDArray[np.int64]) -> list[float]:
        """Return the cosine of each chunk, by the same arithmetic as `search`; all must be held."""
        rows = np.ascontiguousarray(self.positions(numbers))
        assert len(rows) == len(numbers)
        scores = np.empty(len(rows), dtype=np.float32)
        x, out, ids = (faiss.swig_ptr(array) for array in (query, scores, rows))
        faiss.omp_set_num_threads(1)
        if len(rows):
            self._index.compute_distance_subset(1, x, len(rows), out, ids)
        return _cosines(scores)

    def compact(self) -> NDArray[np.int64] | None:
        """Drop dead rows when they outnumber the living; return the rows that were kept, if so."""
        num_dead = len(self._numbers) - self._num_alive
        if num_dead < max(MIN_DEAD_ROWS, self._num_alive):
            return None
        bits = np.unpackbits(self._mask, bitorder="little")[: len(self._numbers)]
        kept = np.flatnonzero(bits)
        vectors = self._index.reconstruct_batch(kept)
        self._index = faiss.IndexFlatIP(self._index.d)
        self._index.add(vectors)
        self._numbers = self._numbers[kept]
        self._select(np.packbits(np.ones(len(kept), dtype=np.uint8), bitorder="little"))
        return kept


class Selection:
    """Some of an index's chunks, as FAISS and others ask for them; of one state of the index."""

    def __init__(self, numbers: NDArray[np.int64], mask: NDArray[np.bool_]) -> None:
        self._numbers = numbers
        self._mask = mask
        self._size = int(np.count_nonzero(mask))
        bits = np.packbits(mask, bitorder="little")
        self.parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))

    def __len__(self) -> int:
        """Return how many chunks are selected."""
        return self._size

    def numbers(self) -> NDArray[np.int64]:
        """Return the chunks' numbers, ascending."""
        selected: NDArray[np.int64] = self._numbers[self._mask]
        return selected

    def has(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return for each chunk whether it is selected; all must be held by the index."""
        selected: NDArray[np.bool_] = self._mask[np.searchsorted(self._numbers, numbers)]
        return selected


def _cosines(products: NDArray[np.float32]) -> list[float]:
    """Return inner products as cosines: rounding takes some of them past 1."""
    clipped: list[float] = products.clip(-1.0, 1.0).tolist()
    return clipped
