"""What is asked of limits, and what they answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from deployments.errors import RateLimited
from deployments.stores.ids import new_id
from deployments.types.access import Limits


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits, and whom they bound: everybody with the same `subject` shares them."""

    subject: str
    limits: Limits


@dataclass(frozen=True, slots=True)
class Cost:
    """What is taken at once, of every budget or of none.

    A lease is one of the `max_concurrent`; it is held until it is released.
    """

    requests: int = 0
    tokens: int = 0
    is_leased: bool = False


@dataclass(frozen=True, slots=True)
class Gauge:
    """How a limit stands: `reset_s` seconds from now nothing of it is used any more."""

    limit: int
    remaining: int
    reset_s: float


@dataclass(frozen=True, slots=True)
class Standing:
    """The tightest limit of each kind; None where there is none."""

    requests: Gauge | None = None
    tokens: Gauge | None = None


def new_lease(budgets: Sequence[Budget], cost: Cost) -> str:
    """Return the id of a lease; empty where none is asked for, or nobody counts them."""
    is_counted = any(budget.limits.max_concurrent is not None for budget in budgets)
    return new_id("lease") if cost.is_leased and is_counted else ""


class Exceeded(RateLimited):
    """A limit has no room for what was asked, now."""

    standing = Standing()


class Busy(Exception):
    """It cannot be done at once; whoever may block can wait for it."""


class LimitStore(Protocol):
    """Counts what is used. Safe to use from many threads.

    With `may_wait` a method blocks, shortly; without, it raises Busy where it would have to.
    """

    def take(self, budgets: Sequence[Budget], cost: Cost, *, may_wait: bool = True) -> "Admission":
        """Take a cost of all budgets in one atomic step.

        Raises:
            Exceeded: one has no room; nothing was taken of any.
            Overloaded: the store is too busy to say.
        """
        ...

    def finish(self, ends: Sequence["End"], *, may_wait: bool = True) -> None:
        """Have admissions count other tokens than they took, and give their leases back.

        What is over counts from now on, so that it is paid for however late it is known.
        """
        ...

    def forget(self, admission: "Admission") -> None:
        """Renew an admission's lease no more."""
        ...

    def tend(self) -> None:
        """Renew the leases that are held here, and forget what is long past."""
        ...

    def close(self) -> None:
        """Let go of files and connections; leases that are held run out."""
        ...


@dataclass(frozen=True, slots=True)
class Admission:
    """What was taken: of which budgets, when by the store's clock, and from which store."""

    store: LimitStore
    budgets: tuple[Budget, ...]
    cost: Cost
    second: int
    day: int
    standing: Standing
    lease: str = ""


@dataclass(frozen=True, slots=True)
class End:
    """What becomes of an admission: as many tokens count as it did cost, and its lease ends."""

    admission: Admission
    tokens: int

    @property
    def more(self) -> int:
        """Return how many more tokens count than were taken; negative: fewer."""
        return self.tokens - self.admission.cost.tokens

    @property
    def changes(self) -> bool:
        """Return whether anything has to be written."""
        return bool(self.more or self.admission.lease)
