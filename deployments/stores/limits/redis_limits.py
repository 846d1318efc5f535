"""Limits of an installation, counted in one Redis (not a cluster of them) for all its hosts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from deployments.errors import StoreUnavailable
from deployments.stores.limits.admission import Admission, Budget, Busy, Cost, End, new_lease
from deployments.stores.limits.redis_script import FINISH, RENEW, TAKE
from deployments.stores.limits.windows import DAY_S, LEASE_S, Used, refused, standing

PREFIX = "ragserve:limits:"
LEASE_MS = int(LEASE_S * 1000)
NO_LIMIT = -1


class RedisLimits:
    """A `LimitStore` in Redis; it always has to wait, and raises StoreUnavailable for no answer."""

    def __init__(self, url: str, *, timeout_s: float, installation: str = "") -> None:
        """Connect to nothing yet.

        Args:
            url: of Redis.
            timeout_s: longest wait for it.
            installation: a name; those of other names count apart.

        Raises:
            ValueError: the URL is none of Redis.
        """
        self._prefix = f"{PREFIX}{installation}:"
        self._redis = Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            decode_responses=True,
        )
        self._take = self._redis.register_script(TAKE)
        self._finish = self._redis.register_script(FINISH)
        self._renew = self._redis.register_script(RENEW)
        self._held: dict[str, Admission] = {}

    def take(self, budgets: Sequence[Budget], cost: Cost, *, may_wait: bool = True) -> Admission:
        """Take a cost of all budgets, or raise as `LimitStore` says."""
        _check(may_wait)
        lease = new_lease(budgets, cost)
        keys = [key for budget in budgets for key in self._keys(budget)]
        given: list[str | int] = [cost.requests, cost.tokens, lease, LEASE_MS]
        for budget in budgets:
            limits = (getattr(budget.limits, name) for name in LIMITS_OF_SCRIPT)
            given += [NO_LIMIT if limit is None else limit for limit in limits]
        with _translated():
            is_refused, second, microseconds, *found = self._take(keys, given)
        now_s = second + microseconds / 1_000_000
        used = [_used(one, now_s) for one in found]
        if is_refused:
            refusal = refused(budgets, used, cost)
            assert refusal is not None, "the script and `windows` disagree"
            raise refusal
        stands = standing(zip(budgets, (one.after(cost) for one in used), strict=True))
        day = second // DAY_S
        admission = Admission(self, tuple(budgets), cost, second, day, stands, lease)
        if lease:
            self._held[lease] = admission
        return admission

    def finish(self, ends: Sequence[End], *, may_wait: bool = True) -> None:
        """Settle tokens, and give leases back."""
        for end in ends:
            self.forget(end.admission)
        if not any(end.changes for end in ends):
            return
        _check(may_wait)
        keys: list[str] = []
        given: list[str | int] = []
        for end in ends:
            taken = end.admission
            for budget in taken.budgets:
                keys += self._keys(budget)
                limits = budget.limits
                is_minute = limits.requests_per_minute or limits.tokens_per_minute
                given += [end.more, taken.second, taken.day, taken.lease]
                given += [int(bool(is_minute)), int(bool(limits.tokens_per_day))]
        with _translated():
            self._finish(keys, given)

    def forget(self, admission: Admission) -> None:
        """Let a lease run out."""
        self._held.pop(admission.lease, None)

    def tend(self) -> None:
        """Renew the leases that are held here; Redis itself forgets what is long past."""
        held = list(self._held.items())
        pairs = [(self._keys(b)[1], lease) for lease, a in held for b in a.budgets]
        if pairs:
            with _translated():
                self._renew([key for key, _ in pairs], [LEASE_MS, *(one for _, one in pairs)])

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def _keys(self, budget: Budget) -> tuple[str, str]:
        """Return where a budget's counts are, and its leases."""
        counts = f"{self._prefix}{budget.subject}"
        return counts, f"{counts}:leases"


LIMITS_OF_SCRIPT = ("requests_per_minute", "tokens_per_minute", "tokens_per_day", "max_concurrent")


def _used(found: Any, now_s: float) -> Used:
    num_leases, day_tokens, fields = found
    buckets: dict[int, list[int]] = {}
    for kind, second, amount in fields:
        buckets.setdefault(second, [0, 0])[kind == "t"] += amount
    counted = tuple((second, *buckets[second]) for second in sorted(buckets))
    return Used(counted, day_tokens, num_leases, now_s, DAY_S - now_s % DAY_S)  # type: ignore[arg-type]


def _check(may_wait: bool) -> None:
    if not may_wait:
        raise Busy


@contextmanager
def _translated() -> Iterator[None]:
    """Name no address: the URL may hold a password."""
    try:
        yield
    except (RedisError, OSError):
        raise StoreUnavailable("Redis does not answer") from None
