"""Limits in Redis: counted by its clock, and on the host alone when it is away."""

import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from deployments.errors import StoreUnavailable
from deployments.stores.limits.admission import Budget, Busy, Cost, End, Exceeded
from deployments.stores.limits.fallback import FallbackLimits
from deployments.stores.limits.redis_limits import LIMITS_OF_SCRIPT, RedisLimits
from deployments.stores.limits.sqlite_limits import SqliteLimits
from deployments.types.access import LIMITS, Limits
from tests.servers.redis_server import RedisServer, running_redis

REQUEST = Cost(requests=1)
LEASE = Cost(requests=1, is_leased=True)


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[RedisLimits]:
    store = RedisLimits(redis_server.url, timeout_s=2, installation="own")
    yield store
    store.close()


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis_server.client() as client:
        yield client


def of(**limits: int) -> list[Budget]:
    return [Budget("key:a", Limits(**limits))]


def num_taken(store: RedisLimits | FallbackLimits, budgets: list[Budget], cost: Cost) -> int:
    taken = 0
    for _ in range(20):
        try:
            store.take(budgets, cost)
        except Exceeded:
            continue
        taken += 1
    return taken


def shifted(client: redis.Redis, seconds: int, subject: str = "key:a") -> None:
    """Have what was counted be of another time, as if the clock had moved the other way."""
    name = f"ragserve:limits:own:{subject}"
    for field, amount in client.hgetall(name).items():
        kind, at = field.split(":")
        if kind != "d":
            client.hdel(name, field)
            client.hincrby(name, f"{kind}:{int(at) + seconds}", int(amount))
    for lease, score in client.zrange(f"{name}:leases", 0, -1, withscores=True):
        client.zadd(f"{name}:leases", {lease: score + seconds * 1000})


def test_script_takes_every_limit() -> None:
    assert LIMITS_OF_SCRIPT == LIMITS


def test_requests_fill_a_window_and_leave_it(store: RedisLimits, client: redis.Redis) -> None:
    budgets = of(requests_per_minute=7)
    assert num_taken(store, budgets, REQUEST) == 7
    shifted(client, -58)
    assert num_taken(store, budgets, REQUEST) == 0
    shifted(client, -3)
    assert num_taken(store, budgets, REQUEST) == 7


def test_refusal_says_when_there_is_room(store: RedisLimits, client: redis.Redis) -> None:
    budgets = of(requests_per_minute=1)
    store.take(budgets, REQUEST)
    shifted(client, -30)
    with pytest.raises(Exceeded) as refused:
        store.take(budgets, REQUEST)
    assert refused.value.retry_after_s in {30, 31}
    gauge = refused.value.standing.requests
    assert gauge is not None
    assert (gauge.limit, gauge.remaining) == (1, 0)


def test_nothing_is_taken_of_one_budget_where_the_other_refuses(store: RedisLimits) -> None:
    wide, narrow = Limits(requests_per_minute=10), Limits(requests_per_minute=2)
    both = [Budget("key:a", wide), Budget("key:b", narrow)]
    assert num_taken(store, both, REQUEST) == 2
    assert num_taken(store, [Budget("key:a", wide)], REQUEST) == 8


@pytest.mark.parametrize("kind", ["tokens_per_minute", "tokens_per_day"])
def test_tokens_are_settled_down_and_up(store: RedisLimits, client: redis.Redis, kind: str) -> None:
    budgets = of(**{kind: 100})
    first = store.take(budgets, Cost(tokens=80))
    with pytest.raises(Exceeded):
        store.take(budgets, Cost(tokens=30))
    store.finish([End(first, 50)])
    second = store.take(budgets, Cost(tokens=30))
    shifted(client, -59)
    store.finish([End(second, 60)])
    shifted(client, -5)
    left = {"tokens_per_minute": 69, "tokens_per_day": 0}[kind]
    if left:
        gauge = store.take(budgets, Cost(tokens=1)).standing.tokens
        assert gauge is not None
        assert gauge.remaining == left
    else:
        with pytest.raises(Exceeded):
            store.take(budgets, Cost(tokens=1))


@pytest.mark.parametrize("back_s", [2, 30, 900])
def test_clock_that_goes_back_admits_no_more_and_heals_in_a_minute(
    store: RedisLimits, client: redis.Redis, back_s: int
) -> None:
    budgets = of(requests_per_minute=5, max_concurrent=5)
    assert num_taken(store, budgets, LEASE) == 5
    shifted(client, back_s)
    assert num_taken(store, budgets, REQUEST) == 0
    shifted(client, -62)
    assert num_taken(store, budgets, LEASE) == 5


def test_leases_are_renewed_released_and_run_out(store: RedisLimits, client: redis.Redis) -> None:
    budgets = of(max_concurrent=2)
    first = store.take(budgets, LEASE)
    store.take(budgets, LEASE)
    shifted(client, -20)
    store.forget(first)  # as if its process had been killed
    store.tend()
    shifted(client, -15)
    third = store.take(budgets, LEASE)
    assert num_taken(store, budgets, LEASE) == 0
    store.finish([End(third, third.cost.tokens)])
    assert num_taken(store, budgets, LEASE) == 1


def test_nothing_stays_in_redis_for_ever(store: RedisLimits, client: redis.Redis) -> None:
    limits = Limits(9, 9, 9, 9)
    admission = store.take([Budget("key:a", limits)], Cost(1, 1, is_leased=True))
    store.take([Budget("key:b", Limits(tokens_per_minute=9))], Cost(tokens=1))
    store.finish([End(admission, 5)])
    names = client.keys()
    assert names
    assert all(client.ttl(name) > 0 for name in names)


def test_redis_always_has_to_be_waited_for(store: RedisLimits) -> None:
    with pytest.raises(Busy):
        store.take(of(requests_per_minute=1), REQUEST, may_wait=False)


def test_installations_count_apart_in_one_redis(
    store: RedisLimits, redis_server: RedisServer
) -> None:
    budgets = of(requests_per_minute=5)
    assert num_taken(store, budgets, REQUEST) == 5
    other = RedisLimits(redis_server.url, timeout_s=2, installation="other")
    assert num_taken(other, budgets, REQUEST) == 5
    other.close()


def test_error_of_redis_names_no_address() -> None:
    with pytest.raises(StoreUnavailable) as failed:
        RedisLimits("redis://:secret@127.0.0.1:1/0", timeout_s=2).take(
            of(requests_per_minute=1), REQUEST
        )
    assert "secret" not in str(failed.value)
    assert failed.value.__suppress_context__


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_fallback_keeps_limits_while_redis_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, fallbacks = Clock(), []
    with running_redis() as server:
        own = SqliteLimits(tmp_path / "limits.db")
        shared = RedisLimits(server.url, timeout_s=0.1)
        store = FallbackLimits(shared, own, on_fallback=lambda: fallbacks.append(1), clock=clock)
        budgets = of(requests_per_minute=5, max_concurrent=9)
        admission = store.take(budgets, LEASE)
        assert admission.store is shared
        server.kill()
        with caplog.at_level(logging.WARNING):
            assert num_taken(store, budgets, LEASE) == 5
        assert len([one for one in caplog.records if "Redis" in one.message]) == 1
        assert len(fallbacks) == 20
        store.finish([End(admission, admission.cost.tokens)])
        assert not shared._held
        server.start()
        assert store.take(of(max_concurrent=99), LEASE).store is own
        clock.now_s += 1.5
        with pytest.raises(Busy):
            store.take(budgets, LEASE, may_wait=False)
        one = of(max_concurrent=1)
        assert store.take(one, LEASE).store is shared
        clock.now_s += 1.5
        for _ in range(3):  # a refusal is an answer, too
            with pytest.raises(Exceeded):
                store.take(one, LEASE)
        store.close()


def test_fallback_asks_a_silent_redis_once_a_second(tmp_path: Path) -> None:
    with running_redis() as server:
        own = SqliteLimits(tmp_path / "limits.db")
        shared = RedisLimits(server.url, timeout_s=0.1)
        clock = Clock()
        store = FallbackLimits(shared, own, clock=clock)
        budgets = of(requests_per_minute=1000)
        store.take(budgets, REQUEST)
        asked = []
        take = shared.take
        shared.take = lambda *given, **named: asked.append(1) or take(*given, **named)  # type: ignore[method-assign]
        server.send(signal.SIGSTOP)
        for _ in range(3):
            for _ in range(20):
                assert store.take(budgets, REQUEST).store is own
            clock.now_s += 1
        server.send(signal.SIGCONT)
        assert len(asked) == 3
        store.close()
