"""What a batch's lines came to, on its way into the table: many in one transaction."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from deployments.errors import Conflict, StoreUnavailable
from deployments.stores.batches.attempts import BatchAttempts
from deployments.types.batches import LineResult
from deployments.types.tasks import TaskProgress

FLUSH_S = 0.2
"""How long a result may wait for others; as much work a crash can cost, and no more."""

FLUSH_LINES = 256
RETRY_S = 0.5

Report = Callable[[TaskProgress], Awaitable[bool]]
Result = TypeVar("Result")


def superseded() -> Conflict:
    """Return the error of an attempt that does not count any more."""
    return Conflict("another attempt does this batch, or it has ended")


async def patiently(work: Callable[[], Result]) -> Result:
    """Do something on a thread, also when the database comes back only later."""
    while True:
        try:
            return await asyncio.to_thread(work)
        except StoreUnavailable:
            await asyncio.sleep(RETRY_S)


class Record:
    """Of one attempt at a batch."""

    def __init__(
        self, attempts: BatchAttempts, batch_id: str, attempt: int, report: Report
    ) -> None:
        self._attempts = attempts
        self._batch_id = batch_id
        self._attempt = attempt
        self._report = report
        self._waiting: list[LineResult] = []
        self._writing = asyncio.Lock()

    async def add(self, result: LineResult) -> None:
        """Take a result; waits for the table when there are many."""
        self._waiting.append(result)
        if len(self._waiting) >= FLUSH_LINES:
            await self.flush()

    async def flush(self) -> None:
        """Write down what waits; when stopped, it waits on.

        Raises:
            Conflict: the attempt does not count any more.
        """
        async with self._writing:
            results, self._waiting = self._waiting, []
            if not results:
                return
            try:
                counts = await patiently(
                    lambda: self._attempts.record(self._batch_id, self._attempt, results)
                )
            except BaseException:  # it may be written or not; writing it twice changes nothing
                self._waiting[:0] = results
                raise
            if counts is None:
                raise superseded()
            done = counts.completed + counts.failed
            if not await self._report(TaskProgress(done, counts.total, counts.failed)):
                raise superseded()

    async def flush_for_ever(self) -> None:
        """Write down what comes, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_S)
            await self.flush()
