"""Dify's metadata conditions as filters: every operator, and how Dify writes values."""

from typing import Any

import pytest

from deployments.ingress.dify.filters import OPERATORS, filter_of
from deployments.ingress.schemas.dify import DifyMetadataCondition
from deployments.types import AllOf, AnyOf, Condition, MetadataFilter


def condition(operator: str | None, value: Any = "x", name: Any = "year") -> dict[str, Any]:
    return {"name": name, "comparison_operator": operator, "value": value}


def mapped(*conditions: dict[str, Any], logical: str | None = "and") -> MetadataFilter | None:
    body = {"logical_operator": logical, "conditions": list(conditions)}
    return filter_of(DifyMetadataCondition.model_validate(body))


@pytest.mark.parametrize(
    ("operator", "value", "expected"),
    [
        ("contains", "a", ("contains", "a")),
        ("not contains", "a", ("not_contains", "a")),
        ("start with", "a", ("starts_with", "a")),
        ("end with", "a", ("ends_with", "a")),
        ("is", "5", ("eq", "5")),
        ("is not", "a", ("ne", "a")),
        ("in", ["a", "b"], ("in", ["a", "b"])),
        ("in", "a, b,", ("in", ["a", "b"])),
        ("in", 5, ("in", [5])),
        ("not in", "a", ("not_in", ["a"])),
        ("empty", None, ("empty", None)),
        ("empty", "ignored", ("empty", None)),
        ("not empty", None, ("not_empty", None)),
        ("=", "5", ("eq", 5)),
        ("=", "five", ("eq", "five")),
        ("≠", 5.5, ("ne", 5.5)),
        (">", "5.5", ("gt", 5.5)),
        ("<", 5, ("lt", 5)),
        ("≥", "1e3", ("gte", 1000)),
        ("≤", ["7"], ("lte", 7)),
        (">", "nan", ("gt", "nan")),
        ("before", "2026-01-02", ("before", "2026-01-02")),
        ("before", 1767323045, ("before", "2026-01-02T03:04:05Z")),
        ("after", "1767323045", ("after", "2026-01-02T03:04:05Z")),
    ],
)
def test_operator_is_mapped(operator: str, value: Any, expected: tuple[str, Any]) -> None:
    assert mapped(condition(operator, value)) == Condition("year", *expected)


def test_every_operator_of_dify_has_one_of_ours() -> None:
    assert len(OPERATORS) == 18


@pytest.mark.parametrize("operator", sorted(set(OPERATORS) - {"empty", "not empty"}))
def test_condition_without_a_value_does_not_count(operator: str) -> None:
    kept = condition("is", "a")
    assert mapped(condition(operator, None), kept) == Condition("year", "eq", "a")


def test_conditions_are_joined_as_asked() -> None:
    one, two = condition("is", "a"), condition("is", "b", ["x", "y"])
    first = Condition("year", "eq", "a")
    either = AnyOf((Condition("x", "eq", "b"), Condition("y", "eq", "b")))
    assert mapped(one, two) == AllOf((first, either))
    assert mapped(one, two, logical=None) == AllOf((first, either))
    assert mapped(one, two, logical="or") == AnyOf((first, either))
