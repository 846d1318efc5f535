"""Answers in the memory of one process."""

import time
from collections import OrderedDict
from collections.abc import Callable

ENTRY_BYTES = 512
"""What an entry takes besides its value: about, for keys are digests."""


class MemoryResponses:
    """A `ResponseStore` of bounded size; what was used longest ago goes first."""

    def __init__(self, max_bytes: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._entries: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._num_bytes = 0

    @property
    def num_bytes(self) -> int:
        """Return how much is held."""
        return self._num_bytes

    async def get(self, key: str) -> bytes | None:
        """Return what is kept."""
        found = self._entries.get(key)
        if found is None:
            return None
        expires_at, value = found
        if expires_at <= self._clock():
            self._remove(key)
            return None
        self._entries.move_to_end(key)
        return value

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep a value, unless it is larger than all the room."""
        self._remove(key)
        if len(value) + ENTRY_BYTES > self._max_bytes:
            return
        self._entries[key] = self._clock() + ttl_s, value
        self._num_bytes += len(value) + ENTRY_BYTES
        while self._num_bytes > self._max_bytes:
            self._remove(next(iter(self._entries)))

    async def clear(self) -> None:
        """Remove everything."""
        self._entries.clear()
        self._num_bytes = 0

    async def close(self) -> None:
        """Hold no connections."""

    def _remove(self, key: str) -> None:
        found = self._entries.pop(key, None)
        if found is not None:
            self._num_bytes -= len(found[1]) + ENTRY_BYTES
