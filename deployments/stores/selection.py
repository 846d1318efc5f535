"""Some rows of an index, as FAISS and others ask for them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.stores.faiss_views import faiss

Bits = NDArray[np.uint8]
"""One bit per row, least significant first; rows beyond are not selected."""


class Selection:
    """Rows of one state of an index, with the chunk numbers of all its rows."""

    def __init__(self, numbers: NDArray[np.int64], mask: NDArray[np.bool_]) -> None:
        self._numbers = numbers
        self._mask = mask
        self._size = int(np.count_nonzero(mask))
        self._bits: Bits = np.packbits(mask, bitorder="little")

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

    def rows(self) -> NDArray[np.int64]:
        """Return the selected rows, ascending."""
        return np.flatnonzero(self._mask)

    def selector(self, first: int = 0) -> Any:
        """Return a FAISS selector of the rows from `first` on, a multiple of 8, which is its 0."""
        return faiss.IDSelectorBitmap(self._bits[first // 8 :])


class LivingRows:
    """The rows that searches can find; what selects by it is made once for each state."""

    def __init__(self, bits: Bits | None = None) -> None:
        self._bits: Bits = np.empty(0, dtype=np.uint8) if bits is None else bits
        self._size = int(np.unpackbits(self._bits).sum())
        self._selectors: dict[int, Any] = {}

    def __len__(self) -> int:
        """Return how many rows are living."""
        return self._size

    @property
    def num_bytes(self) -> int:
        """Return the bytes held."""
        return self._bits.nbytes

    def bits(self) -> Bits:
        """Return a copy of the mask."""
        return self._bits.copy()

    def make_room(self, num_rows: int) -> None:
        """Let there be as many rows; those that are new are dead."""
        missing = (num_rows + 7) // 8 - len(self._bits)
        if missing > 0:
            room = max(missing, len(self._bits) // 8)
            self._bits = np.concatenate([self._bits, np.zeros(room, dtype=np.uint8)])
            self._selectors.clear()

    def set(self, rows: NDArray[np.int64], *, alive: bool) -> None:
        """Let rows live or not."""
        rows = np.unique(rows)
        changed = rows[self.has(rows) != alive]
        flips = np.left_shift(1, changed & 7).astype(np.uint8)
        np.bitwise_xor.at(self._bits, changed >> 3, flips)
        self._size += len(changed) if alive else -len(changed)

    def has(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return for each row whether it lives."""
        living: NDArray[np.bool_] = (self._bits[rows >> 3] >> (rows & 7).astype(np.uint8)) & 1 == 1
        return living

    def mask(self, num_rows: int) -> NDArray[np.bool_]:
        """Return bool[num_rows]."""
        return np.unpackbits(self._bits, count=num_rows, bitorder="little").astype(np.bool_)

    def rows(self) -> NDArray[np.int64]:
        """Return the living rows, ascending."""
        return np.flatnonzero(np.unpackbits(self._bits, bitorder="little"))

    def selector(self, first: int = 0) -> Any:
        """Return a FAISS selector of the rows from `first` on, a multiple of 8, which is its 0."""
        if first not in self._selectors:
            self._selectors[first] = faiss.IDSelectorBitmap(self._bits[first // 8 :])
        return self._selectors[first]
