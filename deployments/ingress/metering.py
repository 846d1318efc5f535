"""What each request takes of its key's limits, and of its tenant's on the route.

A request is admitted before its body is read. Its tokens are reserved once it is known what it
asks for, and settled once they are counted. A key without limits costs nothing here.
"""

import asyncio
import logging
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, partial
from typing import TypeVar

from deployments.config import IngressArgs, LimitArgs
from deployments.errors import RagError, RateLimited, StoreUnavailable
from deployments.ingress.auth import Key
from deployments.ingress.ended import ended
from deployments.ingress.metrics import CLIENT_GONE, Metrics
from deployments.ingress.rate_headers import Headers, rate_headers
from deployments.stores.content import invalid
from deployments.stores.limits.admission import (
    Admission,
    Budget,
    Busy,
    Cost,
    End,
    Exceeded,
    LimitStore,
    Standing,
)
from deployments.types.access import LIMITS, Limits

BYTES_PER_TOKEN = 4
MAX_THREADS = 8
UNANSWERED_BUT_WORKED = {CLIENT_GONE, 504}
"""Statuses of requests that failed, and yet had a model work."""

ENTRY = Cost(requests=1, is_leased=True)

Result = TypeVar("Result")

log = logging.getLogger(__name__)


class Meter:
    """Makes the tickets of requests."""

    def __init__(self, store: LimitStore | None, args: IngressArgs, metrics: Metrics) -> None:
        """Count in a store; without one, requests that have limits are refused."""
        self._store = store
        self._routes = {prefix: limits_of(given) for prefix, given in args.limits.items()}
        self._default = limits_of(args.key_limits)
        self._metrics = metrics
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="limits")
        self._of_key = lru_cache(4096)(self._limits_of_key)

    def ticket(self, key: Key, path: str) -> "Ticket":
        """Return the ticket of a key's request for a path."""
        return Ticket(self, self._budgets(key, path))

    async def take(self, budgets: tuple[Budget, ...], cost: Cost) -> Admission:
        """Take a cost of budgets; raises as `LimitStore.take`."""
        store = self._store
        if store is None:
            raise StoreUnavailable("there is nowhere to count what limits are for")
        try:
            return store.take(budgets, cost, may_wait=False)
        except Busy:
            taking = self._threads.submit(store.take, budgets, cost)
        except RateLimited as error:
            self._metrics.count_limited(error.param or "")
            raise
        try:
            return await ended(taking)
        except asyncio.CancelledError:
            taking.add_done_callback(partial(_given_up, store))
            raise
        except RateLimited as error:
            self._metrics.count_limited(error.param or "")
            raise

    def finish(self, ends: list[End]) -> Future[None] | None:
        """Finish admissions: at once, or in a thread, whose future is returned."""
        assert self._store is not None
        try:
            self._store.finish(ends, may_wait=False)
        except Busy:
            return self._threads.submit(_quietly, self._store, ends)
        except RagError as error:
            _warn(error)
        return None

    def _budgets(self, key: Key, path: str) -> tuple[Budget, ...]:
        own = self._of_key(key.grants.limits, key.is_admin) if key.id else ()
        found = [Budget(f"key:{key.id}", limits) for limits in own]
        for prefix, limits in self._routes.items():
            if key.id and path.startswith(prefix):
                found.append(Budget(f"route:{key.tenant}:{prefix}", limits))
        return tuple(found)

    def _limits_of_key(self, own: Limits, is_admin: bool) -> tuple[Limits, ...]:
        """Return its own limits, and the default where it says nothing; operators have none."""
        default = Limits() if is_admin else self._default
        merged = Limits(**{name: getattr(own, name) or getattr(default, name) for name in LIMITS})
        return (merged,) if merged != Limits() else ()


class Ticket:
    """What one request has taken so far."""

    def __init__(self, meter: Meter, budgets: tuple[Budget, ...]) -> None:
        self._meter = meter
        self._entry_budgets = tuple(b for b in budgets if _bounds_entry(b.limits))
        self._token_budgets = tuple(b for b in budgets if _bounds_tokens(b.limits))
        self._entry: Admission | None = None
        self._reserved: Admission | None = None
        self._measured: int | None = None
        self._standing = Standing()

    @property
    def counts_tokens(self) -> bool:
        """Return whether anybody asks how many tokens the request takes."""
        return bool(self._token_budgets)

    def headers(self) -> Headers:
        """Return how the limits stand, as OpenAI's clients read it."""
        return rate_headers(self._standing)

    async def admit(self) -> None:
        """Take the request itself; raises RateLimited."""
        if self._entry_budgets:
            self._entry = await self._take(self._entry_budgets, ENTRY)

    async def reserve(self, prompt: int, completion: int, *, param: str) -> None:
        """Take what the request will cost at most, as far as it can be told.

        Args:
            prompt: tokens that go in.
            completion: tokens that may come out.
            param: the field that the first come from.

        Raises:
            RateLimited: it does not fit now.
            InvalidRequest: it never will.
        """
        if not self._token_budgets or prompt + completion == 0:
            return
        for budget in self._token_budgets:
            self._check_size(budget.limits, prompt, completion, param)
        cost = Cost(tokens=prompt + completion)
        self._reserved = await self._take(self._token_budgets, cost)

    def measure(self, tokens: int) -> None:
        """Say what the request did cost."""
        self._measured = (self._measured or 0) + tokens

    def close(self, status: int) -> Future[None] | None:
        """Give back what is not used; the future, if any, is done when that has happened."""
        entry, reserved, self._entry, self._reserved = self._entry, self._reserved, None, None
        ends = [] if entry is None else [End(entry, entry.cost.tokens)]
        if reserved is not None:
            tokens = self._used(status)
            ends.append(End(reserved, reserved.cost.tokens if tokens is None else tokens))
        return self._meter.finish(ends) if ends else None

    def _used(self, status: int) -> int | None:
        """Return the tokens that count; None: those that were reserved, for nobody knows better."""
        if self._measured is not None:
            return self._measured
        is_refused = status >= 400 and status not in UNANSWERED_BUT_WORKED
        return 0 if is_refused else None

    async def _take(self, budgets: tuple[Budget, ...], cost: Cost) -> Admission:
        try:
            admission = await self._meter.take(budgets, cost)
        except Exceeded as error:
            self._note(error.standing)
            raise
        self._note(admission.standing)
        return admission

    def _note(self, standing: Standing) -> None:
        known = self._standing
        self._standing = Standing(
            standing.requests or known.requests, standing.tokens or known.tokens
        )

    @staticmethod
    def _check_size(limits: Limits, prompt: int, completion: int, param: str) -> None:
        given = (limits.tokens_per_minute, limits.tokens_per_day)
        limit = min((one for one in given if one is not None), default=0)
        if prompt > limit:
            raise invalid(f"about {prompt} tokens never fit the limit of {limit}", param)
        if prompt + completion > limit:
            message = f"about {prompt} tokens and {completion} more never fit the limit of {limit}"
            raise invalid(message, "max_tokens")


def estimated(texts: Iterable[str]) -> int:
    """Return about how many tokens texts have."""
    sizes = (len(text.encode("utf-8", "surrogatepass")) for text in texts)
    return sum(-(-size // BYTES_PER_TOKEN) for size in sizes)


def limits_of(args: LimitArgs) -> Limits:
    """Return configured limits."""
    return Limits(**args.model_dump())


def _bounds_entry(limits: Limits) -> bool:
    return limits.requests_per_minute is not None or limits.max_concurrent is not None


def _bounds_tokens(limits: Limits) -> bool:
    return limits.tokens_per_minute is not None or limits.tokens_per_day is not None


def _given_up(store: LimitStore, taking: Future[Admission]) -> None:
    """Give back what was taken for a request that is gone by now."""
    if not taking.cancelled() and taking.exception() is None:
        _quietly(store, [End(taking.result(), 0)])


def _quietly(store: LimitStore, ends: list[End]) -> None:
    try:
        store.finish(ends)
    except RagError as error:
        _warn(error)


def _warn(error: RagError) -> None:
    log.warning("what a request took of limits could not be given back: %s", error.message)
