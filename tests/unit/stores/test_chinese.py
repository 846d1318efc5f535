import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.stores.tokens import document_tokens, tokens

TEXT = "南京市长江大桥今天的天气很好我来到北京清华大学研究向量数据库贾宝玉和林黛玉"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("今天天气", {"今天", "天气"}),
        ("清华大学", {"清华", "大学", "清华大学"}),
        ("猫", {"猫"}),
        ("的", {"的"}),
        ("你好世界 hello", {"你好", "世界", "hello"}),
    ],
)
def test_query_asks_for_words(query: str, expected: set[str]):
    assert expected <= set(tokens(query))


def test_pairs_across_words_are_not_asked_for():
    assert not {"市长", "江大"} & set(tokens("南京市长江大桥"))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(TEXT) - 1), st.integers(1, 12))
def test_every_part_of_a_text_finds_it(start: int, length: int):
    query = set(tokens(TEXT[start : start + length]))
    assert query
    assert query & set(document_tokens(TEXT))
    short = {term for term in query if len(term) <= 2}
    assert short <= set(document_tokens(TEXT))


@pytest.mark.parametrize("text", ["猫が好き", "ภาษาไทย", "한국어", "東京タワー"])
def test_other_unspaced_scripts_are_pairs(text: str):
    assert list(tokens(text)) == [text[i : i + 2] for i in range(len(text) - 1)]
