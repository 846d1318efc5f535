"""The bell over a real table: nobody who rings waits, and no task is left to nobody."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from deployments.ingress.tasks import bell as module
from deployments.ingress.tasks.bell import Bell
from deployments.types.tasks import TaskOrder
from tests.unit.ingress.conftest import until
from tests.unit.ingress.tasks.conftest import House

WAIT_S = 5.0
ORDER = TaskOrder(tenant="acme", key_id="key_1", path="/v1/inference", body=b"{}")


class Workers:
    """Hears nudges; may be slow, or away."""

    def __init__(self) -> None:
        self.num = self.at_once = self.most = 0
        self.free = asyncio.Event()
        self.free.set()
        self.is_away = False

    async def nudge(self) -> None:
        self.num += 1
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            if self.is_away:
                raise RuntimeError("no replica")
            await self.free.wait()
        finally:
            self.at_once -= 1


@asynccontextmanager
async def hung(
    house: House, workers: Workers, publish: Callable[[], None] | None = None
) -> AsyncIterator[Bell]:
    bell = Bell(house.queue(), workers.nudge, publish)
    running = asyncio.create_task(bell.run())
    try:
        yield bell
    finally:
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_who_rings_does_not_wait_and_is_heard(house: House) -> None:
    workers = Workers()
    async with hung(house, workers) as bell:
        bell.ring()
        assert workers.num == 0
        await until(lambda: workers.num == 1, WAIT_S)


async def test_those_who_ring_during_a_nudge_share_the_next(house: House) -> None:
    workers = Workers()
    workers.free.clear()
    async with hung(house, workers) as bell:
        bell.ring()
        await until(lambda: workers.num == 1, WAIT_S)
        for _ in range(100):
            bell.ring()
            await asyncio.sleep(0)
        assert (workers.num, workers.most) == (1, 1)
        workers.free.set()
        await until(lambda: workers.num == 2, WAIT_S)
        await asyncio.sleep(0.1)
        assert (workers.num, workers.most) == (2, 1)


async def test_with_a_broker_each_ring_is_published_and_nobody_nudged(house: House) -> None:
    workers, published = Workers(), []
    async with hung(house, workers, lambda: published.append(1)) as bell:
        for _ in range(5):
            bell.ring()
        await asyncio.sleep(0.2)
        assert (len(published), workers.num) == (5, 0)


@pytest.mark.parametrize("has_broker", [False, True])
async def test_a_task_that_nobody_does_is_noticed(
    house: House, monkeypatch: pytest.MonkeyPatch, has_broker: bool
) -> None:
    """Also one that a dead worker holds: whoever is woken buries it."""
    monkeypatch.setattr(module, "WATCH_S", 0.05)
    workers = Workers()
    async with hung(house, workers, (lambda: None) if has_broker else None):
        await asyncio.sleep(0.3)
        assert workers.num == 0, "there is nothing to do"
        await asyncio.wrap_future(house.store.submit(ORDER, 10))
        await until(lambda: workers.num >= 2, WAIT_S)
        queue = house.queue()
        queue.enlist()
        assert await asyncio.wrap_future(queue.claim(1))
        before = workers.num
        await until(lambda: workers.num > before + 1, WAIT_S)


async def test_one_whose_time_has_not_come_wakes_nobody(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WATCH_S", 0.05)
    workers = Workers()
    later = TaskOrder(
        tenant="acme",
        key_id="key_1",
        path="/v1/inference",
        body=b"{}",
        not_before=time.time() + 1,
    )
    async with hung(house, workers):
        await asyncio.wrap_future(house.store.submit(later, 10))
        await asyncio.sleep(0.5)
        assert workers.num == 0
        await until(lambda: workers.num > 0, WAIT_S)


async def test_workers_that_are_away_or_silent_are_tried_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WATCH_S", 0.05)
    monkeypatch.setattr(module, "NUDGE_TIMEOUT_S", 0.1)
    workers = Workers()
    workers.is_away = True
    async with hung(house, workers) as bell:
        bell.ring()
        await until(lambda: workers.num == 1, WAIT_S)
        workers.is_away = False
        workers.free.clear()
        await asyncio.sleep(0.1)
        bell.ring()
        await until(lambda: workers.num == 2, WAIT_S)
        await until(lambda: workers.at_once == 0, WAIT_S)
        bell.ring()
        await until(lambda: workers.num == 3, WAIT_S)
