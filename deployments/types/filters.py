"""Conditions on metadata and how they are joined; what each means: ``stores/filters.py``."""

from dataclasses import dataclass
from typing import Any, Literal

FilterOperator = Literal[
    "eq",
    "ne",
    "gt",
    "gte",
    "lt",
    "lte",
    "in",
    "not_in",
    "contains",
    "not_contains",
    "starts_with",
    "ends_with",
    "before",
    "after",
    "exists",
    "not_exists",
    "empty",
    "not_empty",
]


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison of one metadata field; `value` is a scalar, a list for `in` and `not_in`."""

    field: str
    operator: FilterOperator
    value: Any = None


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part holds."""

    parts: tuple["MetadataFilter", ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part holds."""

    parts: tuple["MetadataFilter", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: "MetadataFilter"


MetadataFilter = Condition | AllOf | AnyOf | Not
