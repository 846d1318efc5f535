"""What a key covers."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Scope = Literal[
    "inference",
    "data",
    "data:write",
    "data:erase",
    "tasks",
    "feedback",
    "usage",
    "models",
    "finetune",
    "metrics",
    "audit",
    "admin",
]
SCOPES: tuple[Scope, ...] = get_args(Scope)
DEFAULT_SCOPES: tuple[Scope, ...] = SCOPES[:7]
"""What a tenant needs of its own; the others concern the whole installation."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a key may ask; None: no limit of its own."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    max_concurrent: int | None = None


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Grants:
    """What a key may do, with what, from where, and how much of it.

    `models` are ids or aliases as a request says them, `collections` the tenant's names, and
    `addresses` networks in CIDR notation; None is every one.
    """

    scopes: tuple[Scope, ...] = DEFAULT_SCOPES
    models: tuple[str, ...] | None = None
    collections: tuple[str, ...] | None = None
    addresses: tuple[str, ...] | None = None
    limits: Limits = field(default=NO_LIMITS)

    def covers_model(self, model: str) -> bool:
        """Return whether a model may be asked by this id."""
        return _covers(self.models, model)

    def covers_collection(self, name: str) -> bool:
        """Return whether a collection of the tenant's may be reached."""
        return _covers(self.collections, name)

    def within(self, other: "Grants") -> bool:
        """Return whether whoever has the other may give this away.

        Limits are no part of it: they bound a key, not what it can reach. Networks count as they
        are written.
        """
        return set(self.scopes) <= set(other.scopes) and all(
            theirs is None or (ours is not None and set(ours) <= set(theirs))
            for ours, theirs in ((getattr(self, n), getattr(other, n)) for n in LISTS)
        )

    def to_json(self) -> dict[str, Any]:
        """Return only what was said, so that a later field changes no stored row."""
        limits = {name: n for name in LIMITS if (n := getattr(self.limits, name)) is not None}
        lists = {name: list(v) for name in LISTS if (v := getattr(self, name)) is not None}
        return {"scopes": list(self.scopes), **lists, **({"limits": limits} if limits else {})}


LISTS = ("models", "collections", "addresses")
LIMITS = tuple(Limits.__dataclass_fields__)
ALL = Grants(scopes=SCOPES)
"""What an admin key covers."""


def grants_of(stored: dict[str, Any]) -> Grants:
    """Return grants as `Grants.to_json` wrote them."""
    lists = {name: tuple(stored[name]) for name in LISTS if name in stored}
    limits = Limits(**stored.get("limits", {}))
    return Grants(scopes=tuple(stored["scopes"]), limits=limits, **lists)


def _covers(names: Collection[str] | None, name: str) -> bool:
    return names is None or name in names
