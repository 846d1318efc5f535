"""Slots: never more than there are, and each tenant its share of them."""

import asyncio
from collections import Counter

import pytest

from deployments.errors import Overloaded
from deployments.ingress.slots import Slots
from tests.unit.ingress.conftest import Build, in_process
from tests.unit.ingress.fake_graph import FakeGraph


class Crowd:
    """Requests of tenants; `end` lets the one that has run longest end."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.running: list[tuple[str, asyncio.Event]] = []
        self.served: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.tasks: list[asyncio.Task[None]] = []

    async def come(self, tenant: str, num: int = 1) -> None:
        for _ in range(num):
            self.tasks.append(asyncio.create_task(self._work(tenant)))
        await _settled()

    async def end(self, tenant: str | None = None) -> None:
        one = next(one for one in self.running if tenant in (None, one[0]))
        self.running.remove(one)
        one[1].set()
        await _settled()

    def num_running(self, tenant: str) -> int:
        return sum(one[0] == tenant for one in self.running)

    async def _work(self, tenant: str) -> None:
        done = asyncio.Event()
        try:
            async with self.slots.one(tenant):
                self.running.append((tenant, done))
                self.served[tenant] += 1
                await done.wait()
        except Overloaded:
            self.refused[tenant] += 1


async def _settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def crowd() -> Crowd:
    return Crowd(Slots(8, max_wait_s=60))


async def test_slots_refuse_a_flood_at_once(crowd: Crowd) -> None:
    await crowd.come("flood", 20)
    assert crowd.num_running("flood") == 8
    assert crowd.refused["flood"] == 12
    assert crowd.slots.num_waiting == 0


async def test_slots_give_the_next_to_who_has_fewest(crowd: Crowd) -> None:
    await crowd.come("flood", 20)
    await crowd.come("small")
    assert (crowd.num_running("small"), crowd.refused["small"]) == (0, 0)
    await crowd.come("flood", 5)
    await crowd.end()
    assert crowd.num_running("small") == 1


async def test_slots_leave_a_tenant_beside_a_flood_as_much_as_it_asks(crowd: Crowd) -> None:
    """The flood asks ten times as often; the other waits for one of its ends, and no more."""
    for _ in range(200):
        await crowd.come("flood", 10)
        await crowd.come("small")
        await crowd.end("flood")
        assert crowd.num_running("small") == 1
        await crowd.end("small")
    assert crowd.refused["small"] == 0
    assert crowd.served["small"] == 200


async def test_slots_are_shared_evenly_by_two_floods(crowd: Crowd) -> None:
    await crowd.come("one", 20)
    await crowd.come("two", 20)
    for number in range(100):
        await crowd.end()
        await crowd.come("one", 3)
        await crowd.come("two", 3)
        running = (crowd.num_running("one"), crowd.num_running("two"))
        assert sum(running) == 8
        assert (
            min(running) >= 3 or number < 8
        )  # who comes first takes a free one, and the other the next


async def test_slots_serve_equal_tenants_in_turn() -> None:
    crowd = Crowd(Slots(1, max_wait_s=60))
    await crowd.come("a")
    for tenant in "bcd":
        await crowd.come(tenant)
    assert crowd.slots.num_waiting == 1  # no more wait than there are slots
    assert crowd.refused == Counter("cd")


async def test_slots_take_back_what_is_cancelled(crowd: Crowd) -> None:
    await crowd.come("flood", 8)
    await crowd.come("small", 2)
    first, second = crowd.tasks[-2:]
    first.cancel()
    await crowd.end("flood")  # before the cancelled one has run
    assert crowd.num_running("small") == 1
    second.cancel()
    await _settled()
    assert crowd.slots.num_waiting == 0
    assert crowd.slots.num_held == 7
    for task in crowd.tasks[:8]:
        task.cancel()
    await _settled()
    assert crowd.slots.num_held == 0


async def test_slots_that_are_granted_to_who_gives_up_are_not_lost(crowd: Crowd) -> None:
    await crowd.come("flood", 8)
    await crowd.come("small")
    one = crowd.running.pop()
    one[1].set()
    await asyncio.sleep(0)  # the slot is handed over
    crowd.tasks[-1].cancel()
    await _settled()
    assert crowd.slots.num_held == 7


async def test_slots_are_not_waited_for_forever() -> None:
    crowd = Crowd(Slots(4, max_wait_s=0.02))
    await crowd.come("flood", 4)
    await crowd.come("small")
    await asyncio.sleep(0.1)
    assert crowd.refused["small"] == 1
    await crowd.end()
    assert crowd.slots.num_held == 3


async def test_gate_lets_a_tenant_in_beside_a_flood(build: Build, graph: FakeGraph) -> None:
    graph.delay_s = 0.05
    app = build(max_requests_in_flight=4)
    body = {"prompt": "hi"}
    async with in_process(app, "flood") as flood, in_process(app, "small") as small:
        flooding = [asyncio.create_task(flood.post("/v1/inference", json=body)) for _ in range(40)]
        await asyncio.sleep(0.02)
        answers = [(await small.post("/v1/inference", json=body)).status_code for _ in range(5)]
        refused = [response.status_code for response in await asyncio.gather(*flooding)]
    assert answers == [200] * 5
    assert refused.count(200) >= 4
    assert refused.count(503) == 40 - refused.count(200)
