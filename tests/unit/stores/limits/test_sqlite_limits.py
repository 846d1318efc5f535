"""Limits in a file: exact, for all who share it, whatever the clock does."""

from pathlib import Path

import pytest

from deployments.stores.limits.admission import Budget, Cost, End, Exceeded
from deployments.stores.limits.sqlite_limits import SqliteLimits
from deployments.types.access import Limits

REQUEST = Cost(requests=1)
LEASE = Cost(requests=1, is_leased=True)


class Clock:
    """Stands still until it is moved."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


class Host:
    """A file, two clocks, and stores as two processes have them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock, self.wall = Clock(1000.5), Clock(86_400 * 20_000 + 3600.0)
        self.one, self.other = self.store(), self.store()

    def store(self) -> SqliteLimits:
        return SqliteLimits(self.path, clock=self.clock, wall_clock=self.wall)

    def move(self, seconds: float) -> None:
        self.clock.now_s += seconds
        self.wall.now_s += seconds


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "limits.db")


def of(**limits: int) -> list[Budget]:
    return [Budget("key:a", Limits(**limits))]


def num_taken(host: Host, budgets: list[Budget], cost: Cost, tries: int = 20) -> int:
    taken = 0
    for number in range(tries):
        try:
            (host.one if number % 2 else host.other).take(budgets, cost)
        except Exceeded:
            continue
        taken += 1
    return taken


def test_requests_are_counted_for_all_processes(host: Host) -> None:
    budgets = of(requests_per_minute=7)
    assert num_taken(host, budgets, REQUEST) == 7
    host.move(60)
    assert num_taken(host, budgets, REQUEST) == 0
    host.move(1)
    assert num_taken(host, budgets, REQUEST) == 7


def test_refusal_says_when_there_is_room(host: Host) -> None:
    budgets = of(requests_per_minute=3)
    for _ in range(3):
        host.one.take(budgets, REQUEST)
        host.move(10)
    with pytest.raises(Exceeded) as refused:
        host.other.take(budgets, REQUEST)
    assert refused.value.retry_after_s == 31
    assert refused.value.param == "limits.requests_per_minute"
    gauge = refused.value.standing.requests
    assert gauge is not None
    assert (gauge.limit, gauge.remaining) == (3, 0)
    assert gauge.reset_s == pytest.approx(50.5)
    host.move(31)
    host.other.take(budgets, REQUEST)


def test_admission_says_what_is_left_of_the_tightest(host: Host) -> None:
    budgets = [
        Budget("key:a", Limits(requests_per_minute=9, tokens_per_minute=100)),
        Budget("route:t:/v1", Limits(requests_per_minute=5, tokens_per_day=80)),
    ]
    stands = host.one.take(budgets, Cost(requests=1, tokens=30)).standing
    assert stands.requests is not None
    assert (stands.requests.limit, stands.requests.remaining) == (5, 4)
    assert stands.tokens is not None
    assert (stands.tokens.limit, stands.tokens.remaining) == (80, 50)
    assert stands.tokens.reset_s == 82_800


def test_nothing_is_taken_of_one_budget_where_the_other_refuses(host: Host) -> None:
    wide, narrow = Limits(requests_per_minute=10), Limits(requests_per_minute=2)
    both = [Budget("key:a", wide), Budget("key:b", narrow)]
    assert num_taken(host, both, REQUEST) == 2
    assert num_taken(host, [Budget("key:a", wide)], REQUEST) == 8


def test_tokens_are_settled_down_and_up(host: Host) -> None:
    budgets = of(tokens_per_minute=100)
    first = host.one.take(budgets, Cost(tokens=80))
    with pytest.raises(Exceeded):
        host.other.take(budgets, Cost(tokens=30))
    host.one.finish([End(first, 50)])
    second = host.other.take(budgets, Cost(tokens=30))
    host.move(59)
    host.other.finish([End(second, 60)])  # 30 more than were taken: they count from now on
    host.move(2)
    gauge = host.one.take(budgets, Cost(tokens=1)).standing.tokens
    assert gauge is not None
    assert gauge.remaining == 69


def test_day_budget_outlives_the_minute_and_not_the_day(host: Host) -> None:
    budgets = of(tokens_per_day=100)
    host.one.take(budgets, Cost(tokens=90))
    host.move(3600)
    with pytest.raises(Exceeded) as refused:
        host.other.take(budgets, Cost(tokens=20))
    assert refused.value.retry_after_s == 22 * 3600
    host.move(22 * 3600)
    host.other.take(budgets, Cost(tokens=100))


def test_day_budget_is_not_spent_twice_when_the_date_is_set_back(host: Host) -> None:
    budgets = of(tokens_per_day=100)
    host.one.take(budgets, Cost(tokens=100))
    host.wall.now_s += 86_400
    host.one.take(budgets, Cost(tokens=100))
    host.wall.now_s -= 86_400
    assert num_taken(host, budgets, Cost(tokens=1)) == 0


@pytest.mark.parametrize("back_s", [1.0, 30.0, 900.0])
def test_clock_that_begins_anew_admits_no_more_and_heals_in_a_minute(
    host: Host, back_s: float
) -> None:
    budgets = of(requests_per_minute=5, max_concurrent=5)
    assert num_taken(host, budgets, LEASE) == 5
    host.clock.now_s -= back_s
    assert num_taken(host, budgets, REQUEST) == 0
    host.move(60)
    assert num_taken(host, budgets, REQUEST) == 0
    host.move(1)
    assert num_taken(host, budgets, LEASE) == 5


def test_leases_come_back_when_released(host: Host) -> None:
    budgets = of(max_concurrent=2)
    first = host.one.take(budgets, LEASE)
    assert num_taken(host, budgets, LEASE) == 1
    host.one.finish([End(first, first.cost.tokens)])
    host.one.finish([End(first, first.cost.tokens)])
    assert num_taken(host, budgets, LEASE) == 1


def test_lease_of_the_dead_runs_out_and_that_of_the_living_does_not(host: Host) -> None:
    budgets = of(max_concurrent=2)
    host.one.take(budgets, LEASE)
    host.other.take(budgets, LEASE)
    for _ in range(4):
        host.move(10)
        host.one.tend()
    assert num_taken(host, budgets, LEASE) == 1


def test_what_is_long_past_is_forgotten(host: Host) -> None:
    for number in range(50):
        host.one.take([Budget(f"key:{number}", Limits(tokens_per_minute=9))], Cost(tokens=1))
    host.move(61)
    host.one.tend()
    connection = host.one._file.connection()
    assert connection.execute("SELECT count(*) FROM bucket").fetchone() == (0,)


@pytest.mark.parametrize("damage", [b"", b"no database", b"x" * 20_000])
def test_damaged_file_is_replaced(host: Host, damage: bytes) -> None:
    budgets = of(requests_per_minute=5)
    assert num_taken(host, budgets, REQUEST) == 5
    host.one.close()
    host.other.close()
    host.path.write_bytes(damage)
    assert num_taken(host, budgets, REQUEST) == 5


def test_file_that_is_damaged_while_open_is_replaced_for_all(host: Host) -> None:
    budgets = of(requests_per_minute=5, max_concurrent=100)
    assert num_taken(host, budgets, LEASE) == 5
    host.one._file.connection().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    host.path.write_bytes(b"x" * 20_000)
    assert num_taken(host, budgets, REQUEST, tries=200) == 5


def test_limit_that_is_removed_by_hand_begins_anew(host: Host) -> None:
    budgets = of(requests_per_minute=5)
    assert num_taken(host, budgets, REQUEST) == 5
    host.path.unlink()
    assert num_taken(host, budgets, REQUEST) == 5
