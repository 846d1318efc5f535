"""An array that grows at its end: appending often costs little, and little room is unused."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

GROWTH = 1 / 8
"""Room that is added beyond need, as a share: each item is copied about eight times at most."""


def capacity_for(size: int, needed: int) -> int:
    """Return how many items to make room for when `size` no longer suffices for `needed`."""
    return max(needed, size + int(size * GROWTH))


class GrowingArray:
    """Items of one type. What `values` returned before stays as it was when more are appended."""

    def __init__(self, dtype: DTypeLike, items: NDArray[Any] | None = None) -> None:
        self._room = np.empty(0, dtype=dtype) if items is None else np.array(items, dtype=dtype)
        self._size = len(self._room)

    def __len__(self) -> int:
        """Return how many items there are."""
        return self._size

    @property
    def values(self) -> NDArray[Any]:
        """Return the items; what is written there is written here."""
        return self._room[: self._size]

    @property
    def num_bytes(self) -> int:
        """Return the bytes held, unused room included."""
        return self._room.nbytes

    def append(self, items: NDArray[Any]) -> None:
        """Append items."""
        needed = self._size + len(items)
        if needed > len(self._room):
            room = np.empty(capacity_for(len(self._room), needed), dtype=self._room.dtype)
            room[: self._size] = self.values
            self._room = room
        self._room[self._size : needed] = items
        self._size = needed
