import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.stores.highlights import highlights
from deployments.stores.terms import query_terms


def marked(query: str, text: str) -> list[str]:
    return [text[start:end] for start, end in highlights(frozenset(query_terms(query)), text)]


@pytest.mark.parametrize(
    ("query", "text", "expected"),
    [
        ("cafe", "Un Café, un cafe\u0301!", ["Café", "cafe\u0301"]),
        ("STRASSE", "in der Straße", ["Straße"]),
        ("ﬁnd", "find ﬁnd finds", ["find", "ﬁnd"]),
        ("天气", "东京的天气今天很好，天气", ["天气", "天气"]),
        ("今天天气", "今天的天气", ["今天", "天气"]),
        ("猫", "猫が好き、黒猫", ["猫", "猫"]),
        ("שלום", "שָׁלוֹם עולם", ["שָׁלוֹם"]),
        ("🚀", "go 🚀 go", ["🚀"]),
        ("x", "", []),
        ("", "text", []),
        ("ape", "apes grape", []),
    ],
)
def test_words_are_marked_as_they_are_found(query: str, text: str, expected: list[str]):
    assert marked(query, text) == expected


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20), st.text(max_size=60))
def test_spans_are_in_order_and_apart(query: str, text: str):
    spans = highlights(frozenset(query_terms(query)), text)
    flat = [position for span in spans for position in span]
    assert all(a < b for a, b in zip(flat, flat[1:], strict=False))
    assert all(0 <= position <= len(text) for position in flat)
