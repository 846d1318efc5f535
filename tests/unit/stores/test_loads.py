import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from deployments.errors import Overloaded, StoreUnavailable
from deployments.stores.loads import Loads


class Slow:
    """Loads that last until they are let go."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.go = threading.Event()
        self.error: Exception | None = None

    def load(self, name: str) -> None:
        self.names.append(name)
        assert self.go.wait(20)
        if self.error is not None:
            raise self.error


async def test_all_who_wait_share_one_load():
    slow = Slow()
    loads = Loads(slow.load, ThreadPoolExecutor(2))
    waiting = [asyncio.create_task(loads.load(name)) for name in "aab"]
    await asyncio.sleep(0)
    slow.go.set()
    await asyncio.gather(*waiting)
    assert sorted(slow.names) == ["a", "b"]
    await loads.load("a")
    assert sorted(slow.names) == ["a", "a", "b"]


async def test_only_so_many_wait():
    slow = Slow()
    loads = Loads(slow.load, ThreadPoolExecutor(1), max_waiting=2)
    waiting = [asyncio.create_task(loads.load("a")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await loads.load("a")
    slow.go.set()
    await asyncio.gather(*waiting)
    await loads.load("a")


async def test_whoever_gives_up_stops_no_load():
    slow = Slow()
    loads = Loads(slow.load, ThreadPoolExecutor(1), max_waiting=2)
    patient, impatient = (asyncio.create_task(loads.load("a")) for _ in range(2))
    await asyncio.sleep(0)
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    slow.go.set()
    await patient
    assert slow.names == ["a"]


async def test_all_who_wait_get_the_error():
    slow = Slow()
    slow.error = StoreUnavailable("away")
    loads = Loads(slow.load, ThreadPoolExecutor(1))
    slow.go.set()
    found = await asyncio.gather(*(loads.load("a") for _ in range(3)), return_exceptions=True)
    assert [type(one) for one in found] == [StoreUnavailable] * 3
