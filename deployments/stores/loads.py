"""Loading collections beside the searches: once for all who wait, and only so many may wait.

A large collection takes long to load. Its searches wait here and not in the threads that search,
so that searches of other collections go on.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

from deployments.errors import Overloaded

MAX_WAITING = 256
"""Searches that may wait; more are told to come again."""


class Loads:
    """The loads under way in one event loop."""

    def __init__(
        self, load: Callable[[str], None], threads: Executor, max_waiting: int = MAX_WAITING
    ) -> None:
        """Start with none.

        Args:
            load: brings a collection into memory.
            threads: where it does so.
            max_waiting: how many may wait at once.
        """
        self._load = load
        self._threads = threads
        self._max_waiting = max_waiting
        self._num_waiting = 0
        self._under_way: dict[str, asyncio.Future[None]] = {}

    async def load(self, collection: str) -> None:
        """Return when the collection has been loaded by a load that is under way or begins now.

        Raises:
            Overloaded: too many wait already.
        """
        if self._num_waiting >= self._max_waiting:
            raise Overloaded("too many searches wait for collections to be loaded")
        loading = self._under_way.get(collection)
        if loading is None:
            loop = asyncio.get_running_loop()
            loading = loop.run_in_executor(self._threads, self._load, collection)
            self._under_way[collection] = loading
            loading.add_done_callback(lambda done: self._finish(collection, done))
        self._num_waiting += 1
        try:
            await asyncio.shield(loading)
        finally:
            self._num_waiting -= 1

    def _finish(self, collection: str, done: asyncio.Future[None]) -> None:
        self._under_way.pop(collection, None)
        if not done.cancelled():
            done.exception()  # whoever waited has it; without anybody, it does not matter
