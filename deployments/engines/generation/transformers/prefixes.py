"""What the paged cache keeps of ended requests, and how it is made to forget.

The library keeps the full pages of a request after its end, for others whose prompts begin alike.
Here some requests pass by without a trace: those that ran when the cache was told to forget, and
those that were submitted so. While one of them is in the cache, nothing at all is kept of whatever
ends; pages in use stay shared among those that use them. Pages that are given back are not wiped:
no request reads them before it has overwritten them.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol


class PagedCache(Protocol):
    """What is asked of the library's cache."""

    def evict_cached_blocks(self) -> bool:
        """Give back every page that is kept though no request uses it."""
        ...


class Prefixes:
    """Told from any thread; `step` belongs to the thread that generates."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._passing: set[str] = set()
        self._ended: set[str] = set()
        self._waiting: list[Callable[[], None]] = []

    def pass_by(self, slot: str) -> None:
        """Let a request leave no trace; called before it is queued."""
        with self._lock:
            self._passing.add(slot)

    def end(self, slot: str) -> None:
        """Take note that a request is over; called after the library was told so."""
        with self._lock:
            if slot in self._passing:
                self._ended.add(slot)

    def forget(self, slots: Iterable[str], when_done: Callable[[], None]) -> None:
        """Empty the cache with the next step, and let the requests of now leave no trace.

        Args:
            slots: all requests that are not over.
            when_done: called by the thread that generates.
        """
        with self._lock:
            self._passing |= set(slots)
            self._waiting.append(when_done)

    @contextmanager
    def step(self, cache: PagedCache) -> Iterator[None]:
        """Enclose a step of the generation, and give back afterwards what must not be kept.

        Whoever was said to be over before the step is freed by it: the library sees to that first.
        """
        with self._lock:
            ended, self._ended = self._ended, set()
            waiting, self._waiting = self._waiting, []
        yield
        with self._lock:
            is_due = bool(waiting or self._passing)
            self._passing -= ended
        if is_due:
            cache.evict_cached_blocks()
        for when_done in waiting:
            when_done()
