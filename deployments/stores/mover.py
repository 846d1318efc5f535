"""Exports and imports on threads of their own, for an event loop: bounded, and stopped in time."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from deployments.errors import Overloaded
from deployments.stores.parquet_rows import Limits
from deployments.stores.transfers import Transfers
from deployments.types import Exported, Imported

T = TypeVar("T")

NUM_MOVERS = 2
"""Exports and imports at once; more are refused, since each holds a connection and a thread."""

STOP_AHEAD_S = 1.0
"""How long before the caller's deadline work stops, so that its own error arrives in time."""


class Mover:
    """Runs transfers; readers and writers of the same process do not queue behind them."""

    def __init__(self, transfers: Transfers) -> None:
        self._transfers = transfers
        self._threads = ThreadPoolExecutor(NUM_MOVERS, "retriever-transfer")
        self._num_running = 0

    async def pieces(self, collection: str) -> AsyncGenerator[bytes]:
        """Yield an export; its transaction ends with the iterator.

        Raises:
            Overloaded: other transfers are under way.
        """
        with self._place():
            pieces, stop = self._transfers.pieces(collection), _Stop(None)
            try:
                while piece := await self._run(lambda: next(pieces, b""), stop):
                    yield piece
            finally:
                await asyncio.shield(self._run(pieces.close, stop))

    async def export_to(self, collection: str, uri: str, timeout_s: float) -> Exported:
        """Write an export to a file; see `Transfers.export_to`."""
        stop = _Stop(timeout_s)
        with self._place():
            return await self._run(lambda: self._transfers.export_to(collection, uri, stop), stop)

    async def import_from(
        self, collection: str, source: bytes | str, limits: Limits, timeout_s: float
    ) -> Imported:
        """Store a file's rows; cancelled, it stops after the transaction that it is in."""
        stop = _Stop(timeout_s)
        with self._place():
            return await self._run(
                lambda: self._transfers.import_from(collection, source, limits, stop), stop
            )

    async def _run(self, work: Callable[[], T], stop: "_Stop") -> T:
        """Run work on a thread; cancelled, tell it to stop and wait until it has."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait([future])
            raise

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._num_running >= NUM_MOVERS:
            raise Overloaded("other exports and imports are under way; try again shortly")
        self._num_running += 1
        try:
            yield
        finally:
            self._num_running -= 1


class _Stop:
    """Tells work on another thread whether to stop: it was set, or the time is up."""

    def __init__(self, timeout_s: float | None) -> None:
        self._event = threading.Event()
        self._at = None if timeout_s is None else time.monotonic() + timeout_s - STOP_AHEAD_S

    def set(self) -> None:
        """Stop from now on."""
        self._event.set()

    def __call__(self) -> bool:
        """Return whether to stop."""
        return self._event.is_set() or (self._at is not None and time.monotonic() > self._at)
