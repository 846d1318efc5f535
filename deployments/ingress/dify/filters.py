"""Dify's metadata conditions as our filters: its 18 operators, and how it writes their values."""

import math
from datetime import UTC, datetime
from typing import Any

from deployments.ingress.schemas.dify import DifyCondition, DifyMetadataCondition, DifyOperator
from deployments.stores.content import invalid
from deployments.types import AllOf, AnyOf, Condition, FilterOperator, MetadataFilter

OPERATORS: dict[DifyOperator, FilterOperator] = {
    "contains": "contains",
    "not contains": "not_contains",
    "start with": "starts_with",
    "end with": "ends_with",
    "is": "eq",
    "is not": "ne",
    "in": "in",
    "not in": "not_in",
    "empty": "empty",
    "not empty": "not_empty",
    "=": "eq",
    "≠": "ne",
    ">": "gt",
    "<": "lt",
    "≥": "gte",
    "≤": "lte",
    "before": "before",
    "after": "after",
}
WITHOUT_VALUE = frozenset({"empty", "not empty"})
OF_LISTS = frozenset({"in", "not in"})
OF_NUMBERS = frozenset({"=", "≠", ">", "<", "≥", "≤"})
OF_TIMES = frozenset({"before", "after"})


def filter_of(condition: DifyMetadataCondition | None) -> MetadataFilter | None:
    """Return the filter, or None where nothing is asked.

    A condition whose operator or value is null does not count, as in Dify itself.

    Raises:
        InvalidRequest: a value does not suit its operator.
    """
    if condition is None:
        return None
    parts = tuple(
        _part(one, position)
        for position, one in enumerate(condition.conditions or ())
        if _counts(one)
    )
    if len(parts) <= 1:
        return parts[0] if parts else None
    return AnyOf(parts) if condition.logical_operator == "or" else AllOf(parts)


def _counts(condition: DifyCondition) -> bool:
    operator = condition.comparison_operator
    if operator is None:
        return False
    return operator in WITHOUT_VALUE or condition.value is not None


def _part(condition: DifyCondition, position: int) -> MetadataFilter:
    assert condition.comparison_operator is not None
    operator = OPERATORS[condition.comparison_operator]
    value = _value(condition, f"metadata_condition.conditions[{position}].value")
    parts = tuple(Condition(name, operator, value) for name in condition.names())
    return parts[0] if len(parts) == 1 else AnyOf(parts)


def _value(condition: DifyCondition, param: str) -> Any:
    operator, value = condition.comparison_operator, condition.value
    if operator in WITHOUT_VALUE:
        return None
    if operator in OF_LISTS:
        return _list(value)
    if isinstance(value, list):
        if len(value) != 1:
            raise invalid("only `in` and `not in` take a list", param)
        value = value[0]
    if operator in OF_NUMBERS:
        number = _number(value)
        return value if number is None else number
    if operator in OF_TIMES:
        return _time(value, param)
    return value


def _list(value: Any) -> list[Any]:
    """Return the members; Dify sends them as one text with commas, too."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value if isinstance(value, list) else [value]


def _number(value: Any) -> int | float | None:
    """Return the number that a value is or, in Dify's forms, spells; None where it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    try:
        number = float(value)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _time(value: Any, param: str) -> str:
    """Return an instant as RFC 3339; Dify sends seconds since 1970, which may be spelt as text."""
    seconds = _number(value)
    if seconds is None:
        return str(value)
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        raise invalid("the time is out of range", param) from None
