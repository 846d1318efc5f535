"""Late fusion: bounds, order, and what each part adds."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs.fusion import fused, shared_terms

TEXTS = [
    "The ferry to Skarro costs twelve dollars.",
    "The bakery sells bread.",
    "Bicycles travel free on the ferry.",
    "",
]
WORDS = st.sampled_from(["ferry", "cost", "the", "渡轮", "é", "E47", "x"])
SENTENCES = st.lists(WORDS, max_size=8).map(" ".join)


def test_rarer_terms_count_more() -> None:
    scores = shared_terms("Skarro the", TEXTS)
    assert scores[0] > scores[1] > 0
    assert scores[3] == 0


def test_a_text_that_holds_the_whole_query_beats_one_that_holds_half() -> None:
    scores = shared_terms("ferry costs", TEXTS)
    assert scores[0] > scores[2] > scores[1] == 0


def test_chinese_shares_terms_without_spaces() -> None:
    scores = shared_terms("渡轮票价", ["渡轮的票价是十二元", "面包店卖面包"])
    assert scores[0] > scores[1] == 0


@given(SENTENCES, st.lists(SENTENCES, max_size=6), st.data())
def test_scores_lie_in_0_to_1_and_repeat(query: str, texts: list[str], data: st.DataObject) -> None:
    cosines = [data.draw(st.floats(-1.001, 1.001)) for _ in texts]
    scores = fused(query, texts, cosines)
    assert len(scores) == len(texts)
    assert all(0 <= score <= 1 and math.isfinite(score) for score in scores)
    assert fused(query, texts, cosines) == scores


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_score_never_falls_when_the_cosine_rises(one: float, other: float) -> None:
    low, high = sorted((one, other))
    scores = fused("ferry", ["the ferry", "the ferry"], [low, high])
    assert scores[0] <= scores[1]


@given(st.integers(0, 5))
def test_score_never_falls_when_a_term_comes_more_often(times: int) -> None:
    words = ["filler"] * 6
    texts = [" ".join([*["ferry"] * n, *words[n:]]) for n in (times, times + 1)]
    scores = fused("ferry", texts, [0.3, 0.3])
    assert scores[0] <= scores[1]


def test_halves_weigh_alike() -> None:
    (only,) = fused("zebra", ["ferry"], [0.6])
    assert only == pytest.approx(0.3)
    assert fused("", ["ferry"], [1.0]) == (0.5,)
