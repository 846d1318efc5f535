"""The Arrow evaluation equals a naive one in Python, whatever is stored and asked."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deployments.stores.filters import check_filter, microseconds
from deployments.stores.metadata import MetadataIndex
from deployments.types import AllOf, AnyOf, Condition, MetadataFilter, Not

MISSING = object()
DATES = ["2020-01-01", "2020-01-01T00:00:00Z", "2020-01-01T02:00:00+02:00", "2021-06-30 23:59:60Z"]
DATES += ["2020-01-01t00:00:00.000001z", "2019-12-31T23:59:59.9999999", "2020-02-30", "20200101"]

texts = st.sampled_from(["", "a", "A", "ab", "b", "é", "e\u0301", "🚀", "中文", *DATES]) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=3
)
EDGES = [2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**63, -(2**63), 2**64, float(2**53), 2.0**63]
floats = st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: abs(x) < 1e308)
numbers = st.integers(-3, 3) | st.sampled_from([*EDGES, 0.5, -0.0, 1577836800]) | floats
scalars = st.none() | st.booleans() | numbers | texts
names = st.sampled_from(["a", "b"])
documents = st.dictionaries(names, scalars | st.lists(scalars, max_size=3))


def condition(operator: str, values: st.SearchStrategy) -> st.SearchStrategy:
    return st.builds(Condition, names, st.just(operator), values)


conditions = st.one_of(
    *(condition(name, scalars) for name in ("eq", "ne", "contains", "not_contains")),
    *(condition(name, numbers | texts) for name in ("gt", "gte", "lt", "lte")),
    *(condition(name, st.lists(scalars, min_size=1, max_size=4)) for name in ("in", "not_in")),
    *(condition(name, texts) for name in ("starts_with", "ends_with")),
    *(condition(name, st.sampled_from(DATES[:3]) | numbers) for name in ("before", "after")),
    *(condition(name, st.none()) for name in ("exists", "not_exists", "empty", "not_empty")),
)
filters = st.recursive(
    conditions,
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(AllOf, st.lists(inner, min_size=1, max_size=3).map(tuple))
        | st.builds(AnyOf, st.lists(inner, min_size=1, max_size=3).map(tuple))
    ),
    max_leaves=6,
)


def plain(value: Any) -> Any:
    is_huge = type(value) is int and not -(2**63) <= value < 2**63
    return float(value) if is_huge else value


def is_number(value: Any) -> bool:
    return type(value) in (int, float)


def same(a: Any, b: Any) -> bool:
    if is_number(a) and is_number(b):
        return plain(a) == plain(b)
    return type(a) is type(b) and a == b and not isinstance(a, list)


def ordered(operator: str, a: Any, b: Any) -> bool:
    if not (is_number(a) and is_number(b)) and not (isinstance(a, str) and isinstance(b, str)):
        return False
    a, b = plain(a), plain(b)
    return {"gt": a > b, "gte": a >= b, "lt": a < b, "lte": a <= b}[operator]


def instants(operator: str, a: Any, b: Any) -> bool:
    moment = microseconds(b)
    if is_number(a):
        return ordered("lt" if operator == "before" else "gt", a, moment / 1e6)
    if not isinstance(a, str) or microseconds(a) is None:
        return False
    return microseconds(a) < moment if operator == "before" else microseconds(a) > moment


def naive(filter: MetadataFilter, document: dict[str, Any]) -> bool:
    if isinstance(filter, Not):
        return not naive(filter.part, document)
    if isinstance(filter, AllOf):
        return all(naive(part, document) for part in filter.parts)
    if isinstance(filter, AnyOf):
        return any(naive(part, document) for part in filter.parts)
    a, b = document.get(filter.field, MISSING), filter.value
    is_there, is_text = a is not MISSING, isinstance(a, str)
    has = (
        isinstance(b, str) and b in a
        if is_text
        else isinstance(a, list) and any(same(member, b) for member in a)
    )
    match filter.operator:
        case "eq":
            return is_there and same(a, b)
        case "ne":
            return is_there and not same(a, b)
        case "in":
            return is_there and any(same(a, one) for one in b)
        case "not_in":
            return is_there and not any(same(a, one) for one in b)
        case "gt" | "gte" | "lt" | "lte" as operator:
            return ordered(operator, a, b)
        case "contains":
            return has
        case "not_contains":
            return (is_text or isinstance(a, list)) and not has
        case "starts_with":
            return is_text and a.startswith(b)
        case "ends_with":
            return is_text and a.endswith(b)
        case "before" | "after" as operator:
            return instants(operator, a, b)
        case "exists" | "not_exists" as operator:
            return is_there == (operator == "exists")
        case "empty" | "not_empty" as operator:
            is_empty = not is_there or a is None or a == "" or a == []
            return is_empty == (operator == "empty")
    raise AssertionError(filter.operator)


def index_of(*batches: list[dict[str, Any]]) -> MetadataIndex:
    index = MetadataIndex()
    for batch in batches:
        index.stage(np.arange(len(batch)), batch)
    return index


@settings(max_examples=400, deadline=None)
@given(st.lists(st.lists(documents, max_size=4), max_size=4), filters)
@example([[{"a": 2**53 + 1}, {"a": float(2**53)}]], Condition("a", "eq", 2**53 + 1))
@example([[{"a": 2**63 - 1}]], Condition("a", "lt", 2.0**63))
@example([[{"a": -(2**63)}]], Condition("a", "gte", -(2.0**63)))
@example([[{"a": [None, "x"]}]], Condition("a", "contains", None))
@example([[{"a": "x"}]], Condition("a", "contains", ""))
def test_matching_equals_the_naive_evaluation(batches: list[list[dict]], filter: MetadataFilter):
    check_filter(filter)
    index = index_of(*batches)
    everything = [document for batch in batches for document in batch]
    expected = [naive(filter, document) for document in everything]
    assert index.matching(filter).tolist() == expected
    kept = np.arange(0, len(everything), 2)
    index.keep(kept)
    assert index.matching(filter).tolist() == expected[::2]
    assert len(index) == len(kept)


def test_chunks_share_their_document_across_batches():
    index = MetadataIndex()
    index.stage(np.array([0, 0, 1]), [{"a": 1}, {"a": 2}])
    index.stage(np.array([-1, 0]), [{"a": 3}])
    assert index.matching(Condition("a", "eq", 2)).tolist() == [False, False, True, True, False]
    assert index.rows(np.arange(5)) == [0, 0, 1, 1, 2]
    index.keep(np.array([3, 4]))
    assert index.matching(Condition("a", "gte", 2)).tolist() == [True, True]
    assert len(index) == 2


def test_many_small_batches_stay_few_parts():
    index = index_of(*([{"a": i, "b": str(i)}] for i in range(500)))
    assert all(len(column.parts) < 12 for f in index._fields.values() for column in f.columns())
    assert index.matching(Condition("a", "lt", 7)).sum() == 7


def test_number_beyond_every_float_does_no_harm():
    index = index_of([{"a": 10**400}, {"a": -(10**400)}, {"a": 1}])
    assert index.matching(Condition("a", "gt", 1)).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2020-01-01", datetime(2020, 1, 1, tzinfo=UTC)),
        ("2020-01-01T12:30:00", datetime(2020, 1, 1, 12, 30, tzinfo=UTC)),
        ("2020-01-01T12:30:00.5-03:30", datetime(2020, 1, 1, 16, 0, 0, 500_000, tzinfo=UTC)),
        ("2020-01-01t12:30:00z", datetime(2020, 1, 1, 12, 30, tzinfo=UTC)),
        ("0001-01-01T00:00:00+01:00", datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))),
    ],
)
def test_date_is_an_instant(text: str, moment: datetime):
    since = moment.replace(tzinfo=None) - datetime(1970, 1, 1) - moment.utcoffset()
    assert microseconds(text) == since // timedelta(microseconds=1)


@pytest.mark.parametrize(
    "text",
    ["", "2020", "20200101", "2020-1-1", "2020-W01-1", "2020-02-30", "٢٠٢٠-01-01", None, True],
)
def test_other_text_is_no_instant(text: object):
    assert microseconds(text) is None
