"""The driver over a scripted gang: what joins, what is lost, and when a new gang is started."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from deployments.engines.generation.base import EngineRequest
from deployments.engines.generation.deepspeed import driver as module
from deployments.engines.generation.deepspeed.driver import Driver
from deployments.engines.generation.deepspeed.ranks import ModelFacts, Orders, Outcome, Progress
from deployments.errors import EngineFailed
from deployments.types import SamplingParams

FACTS = ModelFacts(vocab_size=9, max_positions=64, eos_token_ids=frozenset({0}), num_pages=1)


class ScriptedRanks:
    """Ranks that give each request a token a step, and fail when they are told to."""

    def __init__(self) -> None:
        self.num_starts = 0
        self.num_stops = 0
        self.orders: list[Orders] = []
        self.running: list[str] = []
        self.can_start = asyncio.Event()
        self.can_start.set()
        self.is_broken = False
        self.is_dying = False

    async def start(self) -> ModelFacts:
        self.num_starts += 1
        await self.can_start.wait()
        if self.is_broken:
            raise EngineFailed("cannot load")
        self.is_dying = False
        return FACTS

    async def step(self, orders: Orders) -> Outcome:
        await asyncio.sleep(0.001)
        if self.is_dying:
            raise EngineFailed("a rank has died")
        self.orders.append(orders)
        self.running += [request.id for request in orders.joins]
        self.running = [id_ for id_ in self.running if id_ not in orders.cancels]
        progress = tuple(Progress(id_, (1,)) for id_ in self.running)
        return Outcome(progress, len(self.running), not self.running, 0.0)

    async def stop(self) -> None:
        self.num_stops += 1
        self.running = []


class Seen:
    """What the driver has told."""

    def __init__(self) -> None:
        self.tokens: dict[str, int] = {}
        self.lost: list[str] = []

    def on_outcome(self, outcome: Outcome) -> None:
        for one in outcome.progress:
            self.tokens[one.id] = self.tokens.get(one.id, 0) + len(one.tokens)


@pytest.fixture
def ranks() -> ScriptedRanks:
    return ScriptedRanks()


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
async def driver(
    ranks: ScriptedRanks, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Driver]:
    monkeypatch.setattr(module, "START_PAUSE_S", 0.001)
    driver = Driver(ranks, seen.on_outcome, seen.lost.extend)
    await driver.start()
    yield driver
    await driver.stop()


def request(id_: str) -> EngineRequest:
    return EngineRequest(id_, (1, 2), SamplingParams(max_tokens=8))


async def until(condition: object) -> None:
    async with asyncio.timeout(5):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.001)


async def test_requests_join_between_the_steps_of_others(
    driver: Driver, ranks: ScriptedRanks, seen: Seen
) -> None:
    driver.submit(request("a"))
    await until(lambda: seen.tokens.get("a", 0) > 3)
    driver.submit(request("b"))
    await until(lambda: seen.tokens.get("b", 0) > 3)
    assert seen.tokens["a"] > seen.tokens["b"]
    assert [[one.id for one in orders.joins] for orders in ranks.orders if orders.joins] == [
        ["a"],
        ["b"],
    ]


async def test_withdraw_frees_at_the_next_step_and_then_the_ranks_rest(
    driver: Driver, ranks: ScriptedRanks, seen: Seen
) -> None:
    driver.submit(request("a"))
    await until(lambda: "a" in seen.tokens)
    driver.withdraw("a")
    driver.withdraw("a")
    await until(lambda: not ranks.running)
    num_steps = len(ranks.orders)
    await asyncio.sleep(0.02)
    assert len(ranks.orders) == num_steps
    assert [orders.cancels for orders in ranks.orders if orders.cancels] == [("a",)]


async def test_withdraw_before_the_next_step_never_reaches_the_ranks(
    driver: Driver, ranks: ScriptedRanks, seen: Seen
) -> None:
    driver.submit(request("a"))
    driver.withdraw("a")
    driver.submit(request("b"))
    await until(lambda: "b" in seen.tokens)
    assert all(one.id == "b" for orders in ranks.orders for one in orders.joins)


async def test_a_dead_rank_loses_what_ran_and_what_came_later_waits_for_the_new_gang(
    driver: Driver, ranks: ScriptedRanks, seen: Seen
) -> None:
    driver.submit(request("a"))
    await until(lambda: "a" in seen.tokens)
    ranks.can_start.clear()
    ranks.is_dying = True
    await until(lambda: ranks.num_starts == 2)
    assert seen.lost == ["a"]
    driver.submit(request("b"))
    assert driver.is_alive
    ranks.can_start.set()
    await until(lambda: "b" in seen.tokens)
    assert (ranks.num_stops, seen.lost) == (1, ["a"])


async def test_a_step_that_hangs_is_a_dead_gang(
    driver: Driver, ranks: ScriptedRanks, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STEP_TIMEOUT_S", 0.05)
    whole_step = ranks.step

    async def hang(orders: Orders) -> Outcome:
        monkeypatch.setattr(ranks, "step", whole_step)
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(ranks, "step", hang)
    driver.submit(request("a"))
    await until(lambda: seen.lost == ["a"])
    driver.submit(request("b"))
    await until(lambda: "b" in seen.tokens)


async def test_the_driver_gives_up_when_no_gang_starts_any_more(
    driver: Driver, ranks: ScriptedRanks, seen: Seen
) -> None:
    driver.submit(request("a"))
    await until(lambda: "a" in seen.tokens)
    ranks.is_broken = ranks.is_dying = True
    await until(lambda: ranks.num_starts > 1)
    driver.submit(request("b"))
    await until(lambda: not driver.is_alive)
    assert ranks.num_starts == 1 + module.MAX_STARTS
    assert seen.lost == ["a", "b"]


async def test_forget_is_an_order_to_ranks_that_rest_too(
    driver: Driver, ranks: ScriptedRanks
) -> None:
    await asyncio.gather(driver.forget(), driver.forget())
    assert [orders.is_forgetting for orders in ranks.orders] == [True]


async def test_forget_is_answered_by_the_next_gang_or_fails_with_the_last(
    driver: Driver, ranks: ScriptedRanks
) -> None:
    ranks.is_dying = True
    await driver.forget()
    assert (ranks.num_starts, ranks.orders[-1].is_forgetting) == (2, True)
    ranks.is_broken = ranks.is_dying = True
    with pytest.raises(EngineFailed):
        await driver.forget()


async def test_stop_loses_every_request_and_ends_the_gang(
    driver: Driver, ranks: ScriptedRanks, seen: Seen
) -> None:
    driver.submit(request("a"))
    await until(lambda: "a" in seen.tokens)
    driver.submit(request("b"))
    await driver.stop()
    assert sorted(seen.lost) == ["a", "b"]
    assert not driver.is_alive
    assert ranks.num_stops == 1


async def test_start_ends_a_gang_that_cannot_load(ranks: ScriptedRanks, seen: Seen) -> None:
    ranks.is_broken = True
    driver = Driver(ranks, seen.on_outcome, seen.lost.extend)
    with pytest.raises(EngineFailed, match="cannot load"):
        await driver.start()
    assert ranks.num_stops == 1
    assert not driver.is_alive
