"""Tells workers that there are tasks, off the path of requests, and wakes them from zero.

Whoever puts a task in rings; nobody waits for who hears it. It does not know Ray.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from deployments.errors import StoreUnavailable
from deployments.stores.tasks.queue import TaskQueue

WATCH_S: Final = 3.0
"""How often the table is looked at: workers that sleep, or died, do not do it."""

PAUSE_S: Final = 0.02
"""From one nudge to the next: a worker that is awake looks as often by itself."""

NUDGE_TIMEOUT_S: Final = 60.0
"""Until a worker has started that there was none of; then it is tried again."""

log = logging.getLogger("ray.serve")


class Bell:
    """Of one event loop; `run` has to run for anybody to hear it."""

    def __init__(
        self,
        queue: TaskQueue,
        nudge: Callable[[], Awaitable[object]],
        publish: Callable[[], None] | None,
        has_more: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take who is told.

        Args:
            queue: to look for tasks that nobody does.
            nudge: has a worker look for tasks; waits until there is one.
            publish: tells consumers of a broker, where there is one; must not wait.
            has_more: returns whether there is anything else for workers; called on a thread.
        """
        self._queue = queue
        self._nudge = nudge
        self._publish = publish
        self._has_more = has_more
        self._is_rung = asyncio.Event()

    def ring(self) -> None:
        """Tell that a task may begin; return at once."""
        if self._publish is not None:
            self._publish()
        else:
            self._is_rung.set()

    async def run(self) -> None:
        """Nudge workers when somebody rings, and while there is something to do; until cancelled.

        One nudge at a time: those who ring meanwhile share the next.
        """
        while True:
            is_rung = await self._rung()
            if is_rung or await self._has_work():
                await self._nudged()
                await asyncio.sleep(PAUSE_S)

    async def _rung(self) -> bool:
        try:
            async with asyncio.timeout(WATCH_S):
                await self._is_rung.wait()
        except TimeoutError:
            return False
        self._is_rung.clear()
        return True

    async def _has_work(self) -> bool:
        try:
            backlog = await asyncio.to_thread(self._queue.backlog)
            if backlog.ready + backlog.running > 0:  # what runs may be a dead worker's
                return True
            return await asyncio.to_thread(self._has_more)
        except StoreUnavailable:
            return False

    async def _nudged(self) -> None:
        try:
            async with asyncio.timeout(NUDGE_TIMEOUT_S):
                await self._nudge()
        except Exception as error:  # of Ray's: the watch tries again
            log.warning("no worker could be told of tasks: %s", type(error).__name__)
            await asyncio.sleep(WATCH_S)
