"""What was done is written down, also when whoever writes is stopped over it."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from deployments.errors import Conflict
from deployments.ingress.batches.record import Record
from deployments.types.batches import LineCounts, LineResult
from deployments.types.tasks import TaskProgress


class FakeAttempts:
    """A table that writes when it is let; a second result for a line changes nothing."""

    def __init__(self, *, counts: bool = True) -> None:
        self.free = threading.Event()
        self.entered = threading.Event()
        self.written: list[int] = []
        self._counts = counts

    def record(self, id_: str, attempt: int, results: Sequence[LineResult]) -> LineCounts | None:
        self.entered.set()
        assert self.free.wait(10)
        self.written += [one.number for one in results if one.number not in self.written]
        return LineCounts(9, len(self.written), 0) if self._counts else None


async def _report(progress: TaskProgress) -> bool:
    return True


def record_of(attempts: FakeAttempts) -> Record:
    return Record(attempts, "batch_1", 1, _report)  # type: ignore[arg-type]


def result(number: int) -> LineResult:
    return LineResult(number, 0, False, b"{}\n")


async def test_write_that_is_stopped_is_made_by_the_next() -> None:
    attempts = FakeAttempts()
    record = record_of(attempts)
    await record.add(result(1))
    flushing = asyncio.create_task(record.flush_for_ever())
    await asyncio.to_thread(attempts.entered.wait, 10)
    flushing.cancel()
    await asyncio.gather(flushing, return_exceptions=True)
    await record.add(result(2))
    attempts.free.set()
    await record.flush()
    assert sorted(attempts.written) == [1, 2]


async def test_attempt_that_does_not_count_is_told() -> None:
    attempts = FakeAttempts(counts=False)
    attempts.free.set()
    record = record_of(attempts)
    await record.add(result(1))
    with pytest.raises(Conflict):
        await record.flush()
