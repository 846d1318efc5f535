"""Whether a window has room, and when it will: arithmetic without a store.

Time is cut into seconds. The last 60 full ones count, and the current one, so that no 60 seconds,
wherever they begin, ever see more than a limit.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from deployments.stores.limits.admission import Budget, Cost, Exceeded, Gauge, Standing
from deployments.types.access import Limits

WINDOW_S = 60
DAY_S = 86_400
LEASE_S = 30.0
"""How long a lease lasts that nobody renews: those of a killed replica come back then."""

BUSY_RETRY_S = 1.0
"""When to come again where all that runs at once is taken: nobody knows when it ends."""


@dataclass(frozen=True, slots=True)
class Used:
    """What a subject has used.

    Args:
        buckets: second, requests and tokens of each second that counts, oldest first.
        day_tokens: of this UTC day.
        num_leases: held now.
        now_s: by the clock that the seconds are of.
        day_left_s: until the UTC day ends.
    """

    buckets: tuple[tuple[int, int, int], ...]
    day_tokens: int
    num_leases: int
    now_s: float
    day_left_s: float

    def after(self, cost: Cost) -> "Used":
        """Return the same once a cost is taken."""
        spent = (int(self.now_s), cost.requests, cost.tokens)
        return Used(
            (*self.buckets, spent),
            self.day_tokens + cost.tokens,
            self.num_leases + cost.is_leased,
            self.now_s,
            self.day_left_s,
        )


def refused(budgets: Iterable[Budget], used: Iterable[Used], cost: Cost) -> Exceeded | None:
    """Return the error to raise unless every budget has room for a cost.

    It says when all have, as far as that depends on time alone.
    """
    pairs = list(zip(budgets, used, strict=True))
    waits = [wait for one, its in pairs for wait in _waits(one.limits, its, cost)]
    blocked = [wait for wait in waits if wait[1] > 0]
    if not blocked:
        return None
    name, wait_s = max(blocked, key=lambda wait: wait[1])
    error = Exceeded(f"the limit `{name}` is used up; try again later")
    error.retry_after_s = max(1, -int(-wait_s // 1))
    error.standing = standing(pairs)
    error.param = f"limits.{name}"
    return error


def standing(pairs: Iterable[tuple[Budget, Used]]) -> Standing:
    """Return the tightest limits of requests and tokens."""
    requests: list[Gauge] = []
    tokens: list[Gauge] = []
    for budget, used in pairs:
        limits = budget.limits
        if limits.requests_per_minute is not None:
            requests.append(_gauge(limits.requests_per_minute, used, 1))
        if limits.tokens_per_minute is not None:
            tokens.append(_gauge(limits.tokens_per_minute, used, 2))
        if limits.tokens_per_day is not None:
            left = max(0, limits.tokens_per_day - used.day_tokens)
            tokens.append(Gauge(limits.tokens_per_day, left, used.day_left_s))
    return Standing(_tightest(requests), _tightest(tokens))


def _waits(limits: Limits, used: Used, cost: Cost) -> list[tuple[str, float]]:
    """Return how long each limit that the cost touches keeps it waiting; 0: it has room."""
    found: list[tuple[str, float]] = []
    if limits.requests_per_minute is not None and cost.requests:
        wait_s = _wait_s(limits.requests_per_minute, used, 1, cost.requests)
        found.append(("requests_per_minute", wait_s))
    if limits.tokens_per_minute is not None and cost.tokens:
        found.append(("tokens_per_minute", _wait_s(limits.tokens_per_minute, used, 2, cost.tokens)))
    if limits.tokens_per_day is not None and cost.tokens:
        has_room = used.day_tokens + cost.tokens <= limits.tokens_per_day
        found.append(("tokens_per_day", 0.0 if has_room else used.day_left_s))
    if limits.max_concurrent is not None and cost.is_leased:
        has_room = used.num_leases < limits.max_concurrent
        found.append(("max_concurrent", 0.0 if has_room else BUSY_RETRY_S))
    return found


def _wait_s(limit: int, used: Used, column: int, cost: int) -> float:
    """Return when enough has left the window; what can never fit waits for an empty one."""
    over = sum(bucket[column] for bucket in used.buckets) + cost - limit
    if over <= 0:
        return 0.0
    leaves_at = used.now_s + WINDOW_S
    for bucket in used.buckets:
        if bucket[column]:
            over -= bucket[column]
            leaves_at = bucket[0] + WINDOW_S + 1
        if over <= 0:
            break
    return leaves_at - used.now_s


def _gauge(limit: int, used: Used, column: int) -> Gauge:
    spent = [bucket for bucket in used.buckets if bucket[column]]
    reset_s = spent[-1][0] + WINDOW_S + 1 - used.now_s if spent else 0.0
    return Gauge(limit, max(0, limit - sum(bucket[column] for bucket in spent)), reset_s)


def _tightest(gauges: list[Gauge]) -> Gauge | None:
    return min(gauges, key=lambda gauge: (gauge.remaining, -gauge.reset_s), default=None)
