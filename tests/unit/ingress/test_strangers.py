"""Bad keys: slower, then not heard; keys that work go on to work."""

import asyncio
from ipaddress import ip_address
from typing import Any

import httpx
import pytest

from deployments.errors import RateLimited, Unauthenticated
from deployments.ingress import strangers as module
from deployments.ingress.strangers import BLOCKED_AFTER, MAX_KNOWN, WINDOW_S, Strangers
from tests.unit.ingress.conftest import KEY, Build, FakeKeys, in_process

HERE, THERE = ip_address("203.0.113.9"), ip_address("203.0.113.10")


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        self.waits: list[float] = []
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(module.asyncio, "sleep", self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def fail(strangers: Strangers, address: Any = HERE, number: int = BLOCKED_AFTER) -> None:
    for _ in range(number):
        with pytest.raises(Unauthenticated):
            await strangers.verify("bad", address)


async def test_a14_bad_keys_get_slower_answers_and_then_none(clock: Clock) -> None:
    keys = FakeKeys()
    strangers = Strangers(keys)
    await fail(strangers)
    assert clock.waits == sorted(clock.waits)
    assert (len(clock.waits), clock.waits[-1]) == (7, 1.75)
    for _ in range(100):
        with pytest.raises(RateLimited) as caught:
            await strangers.verify("bad", HERE)
    assert caught.value.retry_after_s == WINDOW_S
    assert keys.num_asked == BLOCKED_AFTER
    clock.now_s += WINDOW_S
    await fail(strangers, number=1)


async def test_key_that_worked_from_there_goes_on_to_work(clock: Clock) -> None:
    strangers = Strangers(FakeKeys())
    await strangers.verify(KEY, HERE)
    await fail(strangers)
    assert (await strangers.verify(KEY, HERE)).id == "key_1"
    with pytest.raises(RateLimited):
        await strangers.verify(f"{KEY}-of-other", HERE)


async def test_key_that_was_revoked_is_known_no_more(clock: Clock) -> None:
    keys = FakeKeys()
    strangers = Strangers(keys)
    await strangers.verify(KEY, HERE)
    await fail(strangers)

    async def revoked(bearer: str) -> Any:
        raise Unauthenticated("the key is not valid")

    keys.verify = revoked  # type: ignore[method-assign]
    with pytest.raises(Unauthenticated):
        await strangers.verify(KEY, HERE)
    with pytest.raises(RateLimited):
        await strangers.verify(KEY, HERE)


async def test_other_addresses_are_not_blamed(clock: Clock) -> None:
    strangers = Strangers(FakeKeys())
    await fail(strangers)
    assert (await strangers.verify(KEY, THERE)).id == "key_1"


async def test_addresses_of_one_ipv6_network_are_one(clock: Clock) -> None:
    strangers = Strangers(FakeKeys())
    await fail(strangers, ip_address("2001:db8::1"))
    with pytest.raises(RateLimited):
        await strangers.verify(KEY, ip_address("2001:db8::ffff:1"))
    assert (await strangers.verify(KEY, ip_address("2001:db8:0:1::1"))).id == "key_1"


async def test_what_is_remembered_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ADDRESSES", 3)
    strangers = Strangers(FakeKeys())
    for number in range(10):
        await fail(strangers, ip_address(number), number=1)
    assert len(strangers._seen) == 3
    for number in range(MAX_KNOWN + 10):
        await strangers.verify(f"{KEY}-of-t{number}", HERE)
    assert len(strangers._seen[-1 - int(HERE)].known) == MAX_KNOWN


async def test_few_answers_wait_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    strangers = Strangers(FakeKeys())
    release = asyncio.Event()
    num_sleeping = 0

    async def sleep(_: float) -> None:
        nonlocal num_sleeping
        num_sleeping += 1
        await release.wait()

    monkeypatch.setattr(module, "asyncio", type("Fake", (), {"sleep": staticmethod(sleep)}))
    asked = [asyncio.create_task(strangers.verify("bad", HERE)) for _ in range(8)]
    await asyncio.sleep(0.01)
    assert num_sleeping == 2
    release.set()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(one, Unauthenticated) for one in answers)


async def test_missing_key_is_no_bad_key(build: Build) -> None:
    async with in_process(build()) as client:
        del client.headers["authorization"]
        for _ in range(BLOCKED_AFTER + 1):
            assert (await client.get("/v1/models")).status_code == 401
        good = {"authorization": f"Bearer {KEY}"}
        assert (await client.get("/v1/models", headers=good)).status_code == 200


async def test_blocked_address_is_told_when_to_come_back(build: Build, clock: Clock) -> None:
    async with in_process(build()) as client:
        bad = {"authorization": "Bearer bad"}
        answers: list[httpx.Response] = [
            await client.get("/v1/models", headers=bad) for _ in range(BLOCKED_AFTER + 1)
        ]
    assert [one.status_code for one in answers] == [401] * BLOCKED_AFTER + [429]
    assert answers[-1].headers["retry-after"] == "60"
