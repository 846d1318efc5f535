"""How busy a process is with requests that somebody waits for.

The mean of how many there are at once, over time, in which an instant counts e times less for each
second that it is past: short requests are seen as well, and a busy moment is forgotten in seconds.
It does not know what requests are.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

MEMORY_S: Final = 1.0


class Occupancy:
    """Of one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._num_now = 0
        self._mean = 0.0
        self._at = clock()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count a request while it is answered."""
        self._change(1)
        try:
            yield
        finally:
            self._change(-1)

    def mean(self) -> float:
        """Return how many requests there were at once."""
        self._change(0)
        return self._mean

    def _change(self, by: int) -> None:
        now = self._clock()
        weight = math.exp((self._at - now) / MEMORY_S)
        self._mean = self._num_now + (self._mean - self._num_now) * weight
        self._at = now
        self._num_now += by
