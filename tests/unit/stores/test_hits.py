from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.stores.hits import Hit, fuse, nearest

scores = st.lists(st.sampled_from([0.1, 0.5, 0.9]), max_size=40)


@given(scores, st.integers(1, 45), st.randoms())
def test_nearest_is_the_same_however_an_index_breaks_ties(values, limit, random):
    hits = [Hit(number, score) for number, score in enumerate(values)]

    def search(size: int) -> list[Hit]:
        order = {hit.number: random.random() for hit in hits}
        return sorted(hits, key=lambda hit: (-hit.score, order[hit.number]))[:size]

    expected = sorted(hits, key=lambda hit: (-hit.score, hit.number))[:limit]
    assert nearest(search, limit, len(hits)) == expected


def ranking(*numbers: int) -> Sequence[Hit]:
    return [Hit(number, 1.0, cosine=number / 10) for number in numbers]


def test_fusion_adds_reciprocal_ranks():
    fused = fuse([ranking(1, 2), ranking(2, 3)], k=60)
    assert [hit.number for hit in fused] == [2, 1, 3]
    assert [hit.score for hit in fused] == pytest.approx([1 / 62 + 1 / 61, 1 / 61, 1 / 62])
    assert [hit.cosine for hit in fused] == [0.2, 0.1, 0.3]


def test_fusion_of_equal_scores_prefers_the_cosine_then_the_logs_order():
    assert [hit.number for hit in fuse([ranking(3), ranking(9)], k=1)] == [9, 3]
    blind = [[Hit(9, 1.0)], [Hit(3, 1.0)]]
    assert [hit.number for hit in fuse(blind, k=1)] == [3, 9]


def test_fusion_of_nothing_is_nothing():
    assert fuse([[], []], k=60) == []
