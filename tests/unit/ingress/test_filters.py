import pytest
from pydantic import ValidationError

from deployments.ingress.schemas.search import SearchBody
from deployments.types import AllOf, AnyOf, Condition, MetadataFilter, Not

A = {"field": "a", "op": "eq", "value": 1}


def parsed(value: object) -> MetadataFilter | None:
    body = {"collection": "c", "query": "x", "filter": value}
    return SearchBody.model_validate(body).filter


def nested(depth: int) -> dict[str, object]:
    value: dict[str, object] = A
    for _ in range(depth - 1):
        value = {"not": value}
    return value


def test_filter_is_read_as_it_is_said():
    value = {"and": [A, {"or": [A, {"not": {"field": "b", "op": "exists"}}]}]}
    one = Condition("a", "eq", 1)
    assert parsed(value) == AllOf((one, AnyOf((one, Not(Condition("b", "exists"))))))
    assert parsed(None) is None
    assert parsed({"field": "x", "op": "in", "value": [1, "a", None]}) == Condition(
        "x", "in", (1, "a", None)
    )


@pytest.mark.parametrize(
    ("symbol", "operator"),
    [("=", "eq"), ("!=", "ne"), ("≠", "ne"), (">", "gt"), (">=", "gte"), ("≥", "gte")]
    + [("<", "lt"), ("<=", "lte"), ("≤", "lte"), ("starts_with", "starts_with")],
)
def test_operator_has_symbols(symbol: str, operator: str):
    given = {"field": "a", "op": symbol, "value": "1"}
    assert parsed(given) == Condition("a", operator, "1")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "a filter has"),
        ([], "an object"),
        ({"a": 1}, "a filter has"),
        ({"and": [A], "or": [A]}, "a filter has"),
        ({"and": []}, "1 to 128"),
        ({"and": A}, "1 to 128"),
        ({"and": [A] * 129}, "1 to 128"),
        ({"or": [{"and": [A] * 100}, {"and": [A] * 100}]}, "more than 128 conditions"),
        ({"or": [A, {"not": {**A, "op": "like"}}]}, "at or[1].not: unknown `op`"),
        ({"or": [A, {"not": {**A, "op": "gt", "value": True}}]}, "at or[1].not: gt takes"),
        ({**A, "extra": 1}, "only"),
        ({"field": "a", "op": "eq"}, "needs a `value`"),
        ({"field": "a", "value": 1}, "`op` is missing"),
        ({"field": 1, "op": "eq", "value": 1}, "`field` is text"),
        ({"field": "", "op": "eq", "value": 1}, "1 to 256"),
        ({"field": "a", "op": "exists", "value": True}, "takes no value"),
        ({"field": "a", "op": "in", "value": "abc"}, "takes a list"),
        ({"field": "a", "op": "in", "value": [[1]]}, "a value is text"),
        ({"field": "a", "op": "in", "value": [0] * 1001}, "1 to 1000"),
        ({"field": "a", "op": "eq", "value": {"b": 1}}, "a value is text"),
        ({"field": "a", "op": "eq", "value": "x" * 5000}, "at most 4096"),
        ({"field": "a", "op": "eq", "value": float("inf")}, "finite"),
        ({"field": "a", "op": "eq", "value": float("nan")}, "finite"),
        ({"field": "a", "op": "starts_with", "value": 1}, "takes text"),
        ({"field": "a", "op": "before", "value": "2020-02-30"}, "RFC 3339"),
        ({"field": "a", "op": "after", "value": "yesterday"}, "RFC 3339"),
        (nested(13), "deeper than 12"),
        (nested(900), "deeper than 12"),
    ],
)
def test_what_no_filter_says_is_refused_with_its_place(value: object, message: str):
    with pytest.raises(ValidationError) as caught:
        parsed(value)
    [error] = caught.value.errors()
    assert error["loc"] == ("filter",)
    assert message in error["msg"]


def test_deepest_filter_is_accepted():
    assert parsed(nested(12)) is not None
