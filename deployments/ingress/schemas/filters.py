"""A metadata filter as JSON.

`{"field": "year", "op": "gte", "value": 2020}`, or `{"and": [...]}`, `{"or": [...]}`,
`{"not": {...}}` of others.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from deployments.errors import InvalidRequest
from deployments.stores.filters import MAX_DEPTH, OPERATORS, UNARY, check_filter
from deployments.types import AllOf, AnyOf, Condition, MetadataFilter, Not

SYMBOLS = {"=": "eq", "==": "eq", "!=": "ne", "≠": "ne", ">": "gt", ">=": "gte", "≥": "gte"}
SYMBOLS |= {"<": "lt", "<=": "lte", "≤": "lte"}
"""Other spellings of operators."""

MAX_PARTS = 128
EXAMPLE = {"and": [{"field": "year", "op": "gte", "value": 2020}, {"field": "x", "op": "exists"}]}


def parse_filter(value: Any) -> MetadataFilter:
    """Return the filter that a JSON value says.

    Raises:
        PydanticCustomError: it says none; the message names the place in it.
    """
    filter = _parse(value, "", 1)
    try:
        check_filter(filter)
    except InvalidRequest as error:
        raise _refusal(error.message) from None
    return filter


def _parse(value: Any, path: str, depth: int) -> MetadataFilter:
    if depth > MAX_DEPTH:
        raise _refusal(f"the filter nests deeper than {MAX_DEPTH} levels")
    if not isinstance(value, dict):
        raise _refusal("a filter is an object", path)
    if "field" in value:
        return _condition(value, path)
    if len(value) != 1 or not value.keys() <= {"and", "or", "not"}:
        raise _refusal("a filter has `field` and `op`, or exactly one of `and`, `or`, `not`", path)
    [(name, inner)] = value.items()
    if name == "not":
        return Not(_parse(inner, f"{path}.not", depth + 1))
    if not isinstance(inner, list) or not 0 < len(inner) <= MAX_PARTS:
        raise _refusal(f"`{name}` takes a list of 1 to {MAX_PARTS} filters", path)
    parts = tuple(_parse(p, f"{path}.{name}[{i}]", depth + 1) for i, p in enumerate(inner))
    return AllOf(parts) if name == "and" else AnyOf(parts)


def _condition(value: dict[str, Any], path: str) -> Condition:
    field, operator = value["field"], value.get("op")
    if not isinstance(field, str):
        raise _refusal("`field` is text", path)
    if not isinstance(operator, str):
        raise _refusal("`op` is missing" if operator is None else "`op` is text", path)
    name = SYMBOLS.get(operator, operator)
    if name not in OPERATORS:
        raise _refusal("unknown `op`; one of " + ", ".join(sorted(OPERATORS)), path)
    if not value.keys() <= {"field", "op", "value"}:
        raise _refusal("a condition has `field`, `op` and `value` only", path)
    if "value" not in value and name not in UNARY:
        raise _refusal(f"`{name}` needs a `value`", path)
    operand = value.get("value")
    return Condition(field, name, tuple(operand) if isinstance(operand, list) else operand)  # type: ignore[arg-type]


def _refusal(message: str, path: str = "") -> PydanticCustomError:
    place = f"at {path[1:]}: " if path else ""
    return PydanticCustomError("filter", "{problem}", {"problem": place + message})


def _as_given(value: Any) -> Any:
    return None if value is None else parse_filter(value)


Filter = Annotated[
    Condition | AllOf | AnyOf | Not | None,
    BeforeValidator(_as_given),
    WithJsonSchema(
        {
            "anyOf": [{"type": "object"}, {"type": "null"}],
            "description": "Condition on the documents' metadata: `{field, op, value}`, "
            "`{and: []}`, `{or: []}` or `{not: {}}`. op: " + ", ".join(sorted(OPERATORS)),
            "examples": [EXAMPLE],
        }
    ),
]
"""An optional filter of a body."""
