"""One condition, evaluated in Arrow over the columns of its field. Semantics: ``filters.py``."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deployments.stores.columns import MAX_INT, MIN_INT, Column, Field, Kind, Part, Rows, kind_of
from deployments.stores.filters import microseconds
from deployments.types import Condition

Mask = NDArray[np.bool_]
Test = Callable[[Part], Any]
"""Returns for each value of a part whether it matches; null counts as false."""

COMPARE = {"gt": pc.greater, "gte": pc.greater_equal, "lt": pc.less, "lte": pc.less_equal}
COMPARE |= {"eq": pc.equal, "before": pc.less, "after": pc.greater}
TEXT = {
    "contains": pc.match_substring,
    "starts_with": pc.starts_with,
    "ends_with": pc.ends_with,
}
NEGATIONS = {"ne": "eq", "not_in": "in", "not_contains": "contains"}


def evaluate(condition: Condition, field: Field, num_rows: int) -> Mask:
    """Return which rows match, bool[num_rows]."""
    operator = condition.operator
    if operator in NEGATIONS:
        kinds: Sequence[Kind] | None = ("text", "list") if operator == "not_contains" else None
        positive = Condition(condition.field, NEGATIONS[operator], condition.value)  # type: ignore[arg-type]
        return _present(field, num_rows, kinds) & ~evaluate(positive, field, num_rows)
    if operator in ("exists", "not_exists"):
        present = _present(field, num_rows, None)
        return present if operator == "exists" else ~present
    if operator in ("empty", "not_empty"):
        empty = ~_present(field, num_rows, None)
        for rows in _empty(field):
            empty[rows] = True
        return empty if operator == "empty" else ~empty
    mask = np.zeros(num_rows, dtype=np.bool_)
    for rows in _matching(condition, field):
        mask[rows] = True
    return mask


def _present(field: Field, num_rows: int, kinds: Sequence[Kind] | None) -> Mask:
    mask = np.zeros(num_rows, dtype=np.bool_)
    for kind, column in field.scalars.items():
        if kinds is None or kind in kinds:
            for part in column.parts:
                mask[part.rows] = True
    return mask


def _empty(field: Field) -> Iterator[Rows]:
    yield from _where(field.scalars.get("null"), lambda part: pc.is_null(part.values))
    yield from _where(field.scalars.get("text"), lambda part: pc.equal(part.values, ""))
    yield from _where(field.scalars.get("list"), lambda part: pc.equal(part.values, 0))


def _matching(condition: Condition, field: Field) -> Iterator[Rows]:
    operator, value = condition.operator, condition.value
    if operator == "in":
        yield from _among(field.scalars, value)
    elif operator == "contains":
        yield from _among(field.members, [value])
    if operator in ("contains", "starts_with", "ends_with"):
        if isinstance(value, str):
            match = TEXT[operator]
            yield from _where(field.scalars.get("text"), lambda p: match(p.values, pattern=value))
    elif operator in ("before", "after"):
        yield from _instants(operator, value, field)
    elif operator == "eq":
        yield from _among(field.scalars, [value])
    elif operator != "in":
        yield from _ordered(operator, value, field)


def _where(column: Column | None, test: Test) -> Iterator[Rows]:
    for part in column.parts if column is not None else ():
        found = test(part)
        if isinstance(found, pa.Array):
            yield part.rows[pc.fill_null(found, False).to_numpy(zero_copy_only=False)]


def _among(columns: dict[Kind, Column], values: Sequence[Any]) -> Iterator[Rows]:
    """Yield the rows whose value equals one of those given."""
    by_kind: dict[Kind, list[Any]] = {}
    for value in values:
        kind = kind_of(value)
        if kind in ("int", "float"):
            _add_number(by_kind, value)
        else:
            by_kind.setdefault(kind, []).append(value)
    for kind, wanted in by_kind.items():
        column = columns.get(kind)
        if kind == "null":
            yield from _where(column, lambda part: pc.is_null(part.values))
        elif len(wanted) == 1:
            yield from _where(column, lambda part, w=wanted: pc.equal(part.values, w[0]))  # type: ignore[misc]
        elif column is not None and column.parts:
            wanted_set = pa.array(wanted, column.parts[0].values.type)
            yield from _where(
                column,
                lambda part, s=wanted_set: pc.is_in(part.values, value_set=s),  # type: ignore[misc]
            )


def _add_number(by_kind: dict[Kind, list[Any]], value: float) -> None:
    """Add a number as the integer and as the float that it equals, where there are such."""
    nearest = float(value)
    if nearest == value or kind_of(value) == "float":
        by_kind.setdefault("float", []).append(nearest)
        value = int(nearest) if nearest.is_integer() else nearest
    if isinstance(value, int) and MIN_INT <= value <= MAX_INT:
        by_kind.setdefault("int", []).append(value)


def _ordered(operator: str, value: Any, field: Field) -> Iterator[Rows]:
    if isinstance(value, str):
        compare = COMPARE[operator]
        yield from _where(field.scalars.get("text"), lambda part: compare(part.values, value))
        return
    number = value if kind_of(value) == "int" else float(value)
    yield from _where(field.scalars.get("int"), _integer_test(operator, number))
    yield from _where(field.scalars.get("float"), _float_test(operator, number))


def _integer_test(operator: str, value: float) -> Test:
    """Compare 64-bit integers with any number, exactly."""
    is_less = operator in ("lt", "lte")
    if isinstance(value, float) and not value.is_integer():
        value = math.floor(value) if is_less else math.ceil(value)
        operator = "lte" if is_less else "gte"
    value = int(value)
    if not MIN_INT <= value <= MAX_INT:
        is_everything = (value > 0) == is_less
        return lambda part: pa.array(np.full(len(part.rows), is_everything))
    return lambda part: COMPARE[operator](part.values, pa.scalar(value, pa.int64()))


def _float_test(operator: str, value: float) -> Test:
    """Compare floats with any number, exactly: no float lies between a number and its nearest."""
    nearest = float(value)
    if nearest > value:
        operator = "lt" if operator in ("lt", "lte") else "gte"
    elif nearest < value:
        operator = "lte" if operator in ("lt", "lte") else "gt"
    return lambda part: COMPARE[operator](part.values, pa.scalar(nearest, pa.float64()))


def _instants(operator: str, value: Any, field: Field) -> Iterator[Rows]:
    moment = microseconds(value)
    compare, order = COMPARE[operator], "lt" if operator == "before" else "gt"
    assert moment is not None
    yield from _where(
        field.scalars.get("text"),
        lambda part: compare(part.instants(), pa.scalar(moment, pa.int64())),
    )
    yield from _ordered(order, moment / 1e6, field)
