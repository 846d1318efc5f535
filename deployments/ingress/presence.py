"""Whether somebody waits for this process: for how long nobody has. It knows no requests."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Presence:
    """Of those who wait; of one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._num_now = 0
        self._left_at = -math.inf

    @contextmanager
    def one(self) -> Iterator[None]:
        """Note that somebody waits, in the block."""
        self._num_now += 1
        try:
            yield
        finally:
            self._num_now -= 1
            self._left_at = self._clock()

    def idle_s(self) -> float:
        """Return for how long nobody has waited; 0: somebody does."""
        return 0.0 if self._num_now else self._clock() - self._left_at
