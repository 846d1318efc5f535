"""FAISS over memory that is ours: one copy of the vectors serves rows, graph and snapshots.

Knows FAISS's types and nothing of collections.
"""

from typing import Any

import faiss as typed_faiss
import numpy as np
from numpy.typing import NDArray

from deployments.types import Metric, VectorStorage

faiss: Any = typed_faiss
"""FAISS without its type stubs, which know the C++ signatures but not what Python adds to them."""

MARGIN = 0.25
"""How far int8 reaches beyond the training sample's range, as a share of it, at either end."""

DECODED_AT_ONCE = 1024

Codes = NDArray[np.uint8]


class Codec:
    """How one vector becomes bytes: fp32, fp16, or int8 with a range for each dimension."""

    def __init__(self, dim: int, metric: Metric, storage: VectorStorage) -> None:
        self.dim = dim
        self.metric = metric
        self.storage = storage
        self.is_distance = metric == "l2"
        kind = faiss.METRIC_L2 if self.is_distance else faiss.METRIC_INNER_PRODUCT
        self._kind = kind
        self._quantizer: Any = None
        if storage != "fp32":
            name = "QT_fp16" if storage == "fp16" else "QT_8bit"
            self._quantizer = faiss.IndexScalarQuantizer(
                dim, getattr(faiss.ScalarQuantizer, name), kind
            )
            self._quantizer.sq.rangestat = faiss.ScalarQuantizer.RS_minmax
            self._quantizer.sq.rangestat_arg = MARGIN
        self.code_size = int(self.empty().code_size)

    def train(self, vectors: NDArray[np.float32]) -> None:
        """Take the range of each dimension from a sample; needed once, by int8 only."""
        self._quantizer.train(np.ascontiguousarray(vectors))

    @property
    def ranges(self) -> NDArray[np.float32]:
        """Return what `train` learnt; empty but for int8."""
        if self.storage != "int8":
            return np.empty(0, dtype=np.float32)
        learnt: NDArray[np.float32] = faiss.vector_to_array(self._quantizer.sq.trained)
        return learnt

    def take_ranges(self, ranges: NDArray[np.float32]) -> None:
        """Take what another codec learnt."""
        faiss.copy_array_to_vector(ranges, self._quantizer.sq.trained)
        self._quantizer.is_trained = True

    def empty(self) -> Any:
        """Return a FAISS index of this codec without rows, which can be added to."""
        if self._quantizer is None:
            return faiss.IndexFlat(self.dim, self._kind)
        index = faiss.IndexScalarQuantizer(self.dim, self._quantizer.sq.qtype, self._kind)
        index.sq = self._quantizer.sq
        index.is_trained = self._quantizer.is_trained
        return index

    def encode(self, vectors: NDArray[np.float32]) -> Codes:
        """Return uint8[n · code_size]."""
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if self._quantizer is None:
            return vectors.reshape(-1).view(np.uint8)
        codes: Codes = self._quantizer.sa_encode(vectors).reshape(-1)
        return codes

    def decode(self, codes: Codes) -> NDArray[np.float32]:
        """Return float32[n, dim]; for fp32 the very memory."""
        if self._quantizer is None:
            return codes.reshape(-1).view(np.float32).reshape(-1, self.dim)
        decoded: NDArray[np.float32] = self._quantizer.sa_decode(codes.reshape(-1, self.code_size))
        return decoded


class RowView:
    """Rows that stay as they are while more are appended to where they came from."""

    def __init__(self, codec: Codec, codes: Codes) -> None:
        self.codec = codec
        self.codes = codes
        self.index = codec.empty()
        """A FAISS index over this memory, for searching only."""
        vector = faiss.MaybeOwnedVectorUInt8
        if len(codes):
            nobody = vector().owner
            self.index.codes = vector.create_view(faiss.swig_ptr(codes), len(codes), nobody)
            self.index.ntotal = len(self)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.codes) // self.codec.code_size

    def part(self, first: int, last: int) -> "RowView":
        """Return some of the rows, counted from 0 there."""
        size = self.codec.code_size
        return RowView(self.codec, self.codes[first * size : last * size])

    def vectors(self, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        """Return float32[n, dim] of those rows."""
        codes = self.codes.reshape(-1, self.codec.code_size)[rows]
        return self.codec.decode(np.ascontiguousarray(codes))

    def search(self, query: NDArray[np.float32], size: int, parameters: Any) -> NDArray[np.int64]:
        """Return the best rows, by reading every one that the parameters let pass."""
        found: NDArray[np.int64] = self.index.search(query[np.newaxis], size, params=parameters)[1][
            0
        ]
        return found[found >= 0]

    def scores(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the score of each of the rows, float32[n]."""
        rows = np.ascontiguousarray(rows, dtype=np.int64)
        distances = np.empty(len(rows), dtype=np.float32)
        if len(rows) and self.codec.storage == "fp32":
            x, out, ids = (faiss.swig_ptr(array) for array in (query, distances, rows))
            self.index.compute_distance_subset(1, x, len(rows), out, ids)
        else:
            for start in range(0, len(rows), DECODED_AT_ONCE):
                part = slice(start, start + DECODED_AT_ONCE)
                self._compare(query, rows[part], distances[part])
        return -distances if self.codec.is_distance else distances

    def _compare(
        self, query: NDArray[np.float32], rows: NDArray[np.int64], distances: NDArray[np.float32]
    ) -> None:
        compare = faiss.fvec_L2sqr_ny if self.codec.is_distance else faiss.fvec_inner_products_ny
        vectors = self.vectors(rows)
        x, y, out = (faiss.swig_ptr(array) for array in (query, vectors, distances))
        compare(out, x, y, self.codec.dim, len(rows))
