"""The vectors of one collection in the order of its log: appended, read, never moved or changed.

int8 needs a sample to know each dimension's range; until there are enough rows they are held as
fp32. Memory is grown in place, unless a `RowView` looks at it: then it is left to the view.
"""

import numpy as np
from numpy.typing import NDArray

from deployments.stores.faiss_views import Codec, Codes, RowView
from deployments.stores.growing import capacity_for
from deployments.types import Metric, VectorStorage

MIN_TRAINING_ROWS = 1024
"""Rows from which on int8 is used: 1.5 MB of fp32 at 384 dimensions."""

BATCH_ROWS = 8192
"""Rows that are decoded at once: 12 MB at 384 dimensions."""


class Rows:
    """Vectors by position. The caller keeps readers and writers apart; views need no such care."""

    def __init__(
        self,
        dim: int,
        metric: Metric,
        storage: VectorStorage,
        min_training_rows: int = MIN_TRAINING_ROWS,
    ) -> None:
        self._storage = storage
        self._min_training_rows = min_training_rows
        self._codec = Codec(dim, metric, "fp32" if storage == "int8" else storage)
        self._room: Codes = np.empty(0, dtype=np.uint8)
        self._view: RowView | None = RowView(self._codec, self._room)

    @classmethod
    def of(cls, view: RowView, storage: VectorStorage) -> "Rows":
        """Return rows that begin with a view's, whose memory they take over."""
        rows = cls(view.codec.dim, view.codec.metric, storage)
        rows._codec, rows._room, rows._view = view.codec, view.codes, view
        return rows

    @property
    def view(self) -> RowView:
        """Return all rows as they are now; whoever keeps it keeps their memory."""
        assert self._view is not None
        return self._view

    @property
    def num_bytes(self) -> int:
        """Return the bytes held, unused room included."""
        return self._room.nbytes

    def only(self, kept: NDArray[np.int64]) -> "Rows":
        """Return new rows that hold some of these."""
        rows = Rows(self._codec.dim, self._codec.metric, self._storage, self._min_training_rows)
        rows._codec = self._codec
        codes = self.view.codes.reshape(-1, self._codec.code_size)[kept].reshape(-1)
        rows._add(codes)
        return rows

    def append(self, vectors: NDArray[np.float32]) -> None:
        """Append float32[n, dim]."""
        self._add(self._codec.encode(vectors))
        is_due = self._storage == "int8" and len(self.view) >= self._min_training_rows
        if is_due and self._codec.storage != "int8":
            self._become_int8()

    def _add(self, codes: Codes) -> None:
        held = 0 if self._view is None else len(self._view.codes)
        self._view = None
        needed = held + len(codes)
        if needed > len(self._room):
            self._grow(held, capacity_for(len(self._room), needed))
        self._room[held:needed] = codes
        self._view = RowView(self._codec, self._room[:needed])

    def _grow(self, held: int, capacity: int) -> None:
        try:
            self._room.resize(capacity)  # the allocator moves pages where it can, not bytes
        except ValueError:  # somebody looks at it, or it is not ours
            room = np.empty(capacity, dtype=np.uint8)
            room[:held] = self._room[:held]
            self._room = room

    def _become_int8(self) -> None:
        before = self.view
        codec = Codec(before.codec.dim, before.codec.metric, "int8")
        codec.train(before.vectors(slice(None)))
        self._codec, self._room, self._view = codec, np.empty(0, dtype=np.uint8), None
        for first in range(0, len(before), BATCH_ROWS):
            self._add(codec.encode(before.vectors(slice(first, first + BATCH_ROWS))))
