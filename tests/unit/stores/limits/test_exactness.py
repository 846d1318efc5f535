"""Never more than the limit: many threads of two processes, killed holders, and a naive model."""

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments.stores.limits.admission import Admission, Budget, Cost, End, Exceeded
from deployments.stores.limits.redis_limits import RedisLimits
from deployments.stores.limits.sqlite_limits import SqliteLimits
from deployments.types.access import Limits
from tests.servers.redis_server import RedisServer
from tests.unit.stores.limits import taker
from tests.unit.stores.limits.test_sqlite_limits import Clock

LIMIT, AT_ONCE, TRIES = 600, 12, 5


def started(*given: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", taker.__name__, *map(str, given)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_two_processes_of_64_threads_never_get_more_than_the_limit(
    kind: str, tmp_path: Path, redis_server: RedisServer
) -> None:
    where = redis_server.url if kind == "redis" else tmp_path / "limits.db"
    takers = [started("hammer", kind, where, LIMIT, AT_ONCE, TRIES) for _ in range(2)]
    printed = [one.communicate()[0] for one in takers]
    assert all(one.returncode == 0 for one in takers)
    spans = [span for one in printed for span in json.loads(one)]
    begins = sorted(began_s for began_s, _ in spans)
    # Each is noted a moment after it was had, so a little less than 60 s is looked at.
    for first, last in zip(begins, begins[LIMIT:], strict=False):
        assert last - first > 55
    if begins[-1] - begins[0] < 50:
        assert len(begins) == LIMIT
    if max(end for _, end in spans) - begins[0] > 25:
        return  # the machine slept, and leases ran out with it
    moves = sorted([(end, -1) for _, end in spans] + [(began, 1) for began, _ in spans])
    assert max(itertools.accumulate(move for _, move in moves)) <= AT_ONCE


def test_leases_of_a_killed_process_come_back(tmp_path: Path) -> None:
    path = tmp_path / "limits.db"
    store = SqliteLimits(path, clock=taker.fast_clock)
    budgets = [Budget("key:a", Limits(max_concurrent=2))]
    holder = started("hold", path, 2)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        time.sleep(3)  # twice as long as a lease that nobody renews
        with pytest.raises(Exceeded):
            store.take(budgets, Cost(is_leased=True))
    finally:
        holder.kill()
        holder.communicate()
    deadline_s = time.monotonic() + 60
    while True:
        try:
            store.take(budgets, Cost(is_leased=True))
            break
        except Exceeded:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)


@dataclass
class Naive:
    """All that was ever taken, in a list."""

    limits: Limits
    taken: list[list[float]] = field(default_factory=list)
    """When, requests and tokens of each."""
    leases: set[int] = field(default_factory=set)

    def may(self, now_s: float, cost: Cost) -> bool:
        window = [one for one in self.taken if int(one[0]) >= int(now_s) - 60]
        day = [one for one in self.taken if int(one[0]) // 86_400 == int(now_s) // 86_400]
        pairs = (
            (self.limits.requests_per_minute, cost.requests, sum(one[1] for one in window)),
            (self.limits.tokens_per_minute, cost.tokens, sum(one[2] for one in window)),
            (self.limits.tokens_per_day, cost.tokens, sum(one[2] for one in day)),
            (self.limits.max_concurrent, int(cost.is_leased), len(self.leases)),
        )
        return all(limit is None or not more or used + more <= limit for limit, more, used in pairs)


small = st.none() | st.integers(1, 3) | st.integers(4, 12)
limits = st.builds(Limits, small, small, small, small)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("move"), st.floats(0, 45), st.just(0)),
        st.tuples(st.just("jump"), st.floats(80_000, 90_000), st.just(0)),
        st.tuples(st.just("take"), st.integers(0, 2), st.integers(0, 6)),
        st.tuples(st.just("lease"), st.integers(0, 1), st.integers(0, 3)),
        st.tuples(st.just("settle"), st.integers(0, 50), st.integers(0, 9)),
        st.tuples(st.just("release"), st.integers(0, 50), st.just(0)),
    ),
    max_size=40,
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SqliteLimits, Clock]]:
    clock = Clock(86_400 * 20_000.0)
    store = SqliteLimits(
        tmp_path_factory.mktemp("limits") / "limits.db", clock=clock, wall_clock=clock
    )
    yield store, clock
    store.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(limits=limits, steps=steps)
def test_store_decides_as_a_naive_list_does(
    shared: tuple[SqliteLimits, Clock], limits: Limits, steps: list[tuple[str, float, int]]
) -> None:
    store, clock = shared
    clock.now_s += 10 * 86_400
    store.tend()
    model = Naive(limits)
    budgets = [Budget(f"key:{clock.now_s}", limits)]
    taken: list[tuple[Admission, list[float]]] = []
    for kind, one, other in steps:
        if kind in {"move", "jump"}:
            if one > 30:  # as if the holders had died
                model.leases.clear()
                for admission, _ in taken:
                    store.forget(admission)
            clock.now_s += one
            for _ in range(2):  # nothing that is held runs out
                store.tend()
        elif kind in {"take", "lease"}:
            cost = Cost(int(one), other, kind == "lease")
            is_expected = model.may(clock.now_s, cost)
            try:
                admission = store.take(budgets, cost)
            except Exceeded:
                assert not is_expected
                continue
            assert is_expected
            row = [clock.now_s, one, other]
            model.taken.append(row)
            if cost.is_leased:
                model.leases.add(len(taken))
            taken.append((admission, row))
        elif taken:
            index = int(one) % len(taken)
            admission, row = taken[index]
            if kind == "release":
                store.finish([End(admission, admission.cost.tokens)])
                model.leases.discard(index)
            elif row[2] == admission.cost.tokens:  # each is settled once
                store.finish([End(admission, other)])
                model.leases.discard(index)
                if other < row[2]:
                    row[2] = other
                elif other > row[2]:
                    model.taken.append([clock.now_s, 0, other - row[2]])
                    row[2] = admission.cost.tokens
                taken[index] = (admission, [*row[:2], -1])


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(limits=limits, costs=st.lists(st.builds(Cost, st.integers(0, 2), st.integers(0, 6))))
def test_redis_decides_as_the_file_does(
    shared: tuple[SqliteLimits, Clock],
    redis_server: RedisServer,
    limits: Limits,
    costs: list[Cost],
) -> None:
    file, clock = shared
    clock.now_s += 10 * 86_400
    redis = RedisLimits(redis_server.url, timeout_s=60)
    budgets = [Budget(f"key:{clock.now_s}", limits)]
    for cost in costs:
        outcomes = []
        for store in (file, redis):
            try:
                standing = store.take(budgets, cost).standing
                error = ""
            except Exceeded as refusal:
                standing, error = refusal.standing, refusal.message
            kinds = (standing.requests, standing.tokens)
            outcomes.append((error, [one and (one.limit, one.remaining) for one in kinds]))
        assert outcomes[0] == outcomes[1]
    redis.close()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    limits=limits,
    costs=st.lists(st.tuples(st.floats(0, 20), st.integers(0, 3), st.integers(0, 5)), max_size=25),
    last=st.builds(Cost, st.integers(0, 1), st.integers(0, 1)),
)
def test_who_comes_again_when_told_is_admitted(
    shared: tuple[SqliteLimits, Clock],
    limits: Limits,
    costs: list[tuple[float, int, int]],
    last: Cost,
) -> None:
    store, clock = shared
    clock.now_s += 10 * 86_400
    budgets = [Budget(f"key:{clock.now_s}", limits)]
    for moved_s, requests, tokens in costs:
        clock.now_s += moved_s
        with suppress(Exceeded):
            store.take(budgets, Cost(requests, tokens))
    try:
        store.take(budgets, last)
    except Exceeded as refusal:
        clock.now_s += refusal.retry_after_s or 0
        store.take(budgets, last)
