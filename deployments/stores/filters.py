"""What a metadata filter may say, and what its dates mean.

Semantics, kept by ``conditions.py``. A condition compares one field of a document's metadata, or a
built-in field: `_id`, `_title`, `_created_at`, `_updated_at`.

- A missing field matches only `not_exists` and `empty`. A value of a type that the operator does
  not compare does not match. `not` is the exact complement of its part.
- `eq`, `in`: numbers by value (1 is 1.0), never across types (`"1"` is not 1, true is not 1); a
  list equals nothing. `ne`, `not_in`: the field is there and `eq`, `in` do not hold. null is a
  value; an integer beyond 64 bits is the nearest float.
- `gt`, `gte`, `lt`, `lte`: numbers, or text by code points.
- `contains`: text holds a substring, a list a member. `not_contains`: text or a list does not.
- `starts_with`, `ends_with`: text. Text compares exactly: case, width and accents count.
- `before`, `after`: instants, to the microsecond. RFC 3339 text, where a missing time is midnight
  and a missing zone is UTC, or a number of seconds since 1970.
- `exists`: the field is there, null included. `empty`: it is missing, null, `""` or `[]`.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, get_args

from deployments.stores.content import Scalar, invalid
from deployments.types import AllOf, AnyOf, Condition, FilterOperator, MetadataFilter, Not

MAX_CONDITIONS = 128
MAX_DEPTH = 12
MAX_MEMBERS = 1000
MAX_FIELD_CHARS = 256
MAX_VALUE_CHARS = 4096
MAX_NUMBER = 1.7e308

OPERATORS: frozenset[str] = frozenset(get_args(FilterOperator))
UNARY = frozenset({"exists", "not_exists", "empty", "not_empty"})
LISTS = frozenset({"in", "not_in"})
ORDERS = frozenset({"gt", "gte", "lt", "lte"})
TEXTS = frozenset({"starts_with", "ends_with"})
INSTANTS = frozenset({"before", "after"})

_RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?)?", re.ASCII
)
_MAX_MICROSECONDS = 2**62


def check_filter(filter: MetadataFilter, param: str = "filter") -> None:
    """Raise InvalidRequest, which names the place, unless the filter can be evaluated."""
    num_conditions = 0
    for place, depth, part in _parts(filter):
        if depth > MAX_DEPTH:
            raise invalid(f"the filter nests deeper than {MAX_DEPTH} levels", param)
        if not isinstance(part, Condition):
            if isinstance(part, AllOf | AnyOf) and not part.parts:
                raise invalid(f"{place}an empty list has no meaning", param)
            continue
        num_conditions += 1
        if num_conditions > MAX_CONDITIONS:
            raise invalid(f"the filter has more than {MAX_CONDITIONS} conditions", param)
        problem = _problem(part)
        if problem:
            raise invalid(f"{place}{problem}", param)


def _parts(filter: MetadataFilter) -> Iterator[tuple[str, int, MetadataFilter]]:
    """Yield every part with its place, outer ones first; no nesting is too deep for it."""
    todo: list[tuple[str, int, MetadataFilter]] = [("", 1, filter)]
    while todo:
        path, depth, part = todo.pop()
        yield (f"at {path[1:]}: " if path else ""), depth, part
        if depth > MAX_DEPTH:
            return
        if isinstance(part, Not):
            todo.append((f"{path}.not", depth + 1, part.part))
        elif isinstance(part, AllOf | AnyOf):
            name = "and" if isinstance(part, AllOf) else "or"
            inner = [(f"{path}.{name}[{i}]", depth + 1, p) for i, p in enumerate(part.parts)]
            todo += reversed(inner)


def _problem(condition: Condition) -> str:
    """Return what is wrong with a condition, or nothing."""
    operator, value = condition.operator, condition.value
    if not isinstance(operator, str) or operator not in OPERATORS:
        return "unknown operator"
    if not 0 < len(condition.field) <= MAX_FIELD_CHARS:
        return f"a field's name has 1 to {MAX_FIELD_CHARS} characters"
    if operator in LISTS:
        if not isinstance(value, list | tuple) or not 0 < len(value) <= MAX_MEMBERS:
            return f"{operator} takes a list of 1 to {MAX_MEMBERS} values"
        return next(filter(None, map(_scalar_problem, value)), "")
    return _scalar_problem(value) or _type_problem(operator, value)


def _type_problem(operator: str, value: object) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_text = isinstance(value, str)
    if operator in UNARY:
        return "" if value is None else f"{operator} takes no value"
    if operator in ORDERS and not (is_number or is_text):
        return f"{operator} takes a number or text"
    if operator in TEXTS and not is_text:
        return f"{operator} takes text"
    if operator in INSTANTS and microseconds(value) is None:
        return f"{operator} takes an RFC 3339 date or time, or seconds since 1970"
    return ""


def _scalar_problem(value: object) -> str:
    if not isinstance(value, Scalar):
        return "a value is text, a number, true, false or null"
    if isinstance(value, str) and (len(value) > MAX_VALUE_CHARS or not _is_storable(value)):
        return f"a value is text of at most {MAX_VALUE_CHARS} characters without U+0000"
    if isinstance(value, int | float) and not abs(value) <= MAX_NUMBER:
        return "a number must be finite"
    return ""


def _is_storable(text: str) -> bool:
    return "\x00" not in text and not any("\ud800" <= c <= "\udfff" for c in text)


def microseconds(value: Any) -> int | None:
    """Return the instant that a date or number means, since 1970 in UTC; None if it means none."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        bounded = max(-_MAX_MICROSECONDS / 1e6, min(_MAX_MICROSECONDS / 1e6, value))
        return round(bounded * 1e6)
    if not isinstance(value, str) or _RFC_3339.fullmatch(value) is None:
        return None
    try:
        moment = datetime.fromisoformat(value.upper())
    except ValueError:  # the thirtieth of February
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
