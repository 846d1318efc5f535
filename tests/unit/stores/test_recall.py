import numpy as np
import pytest

from deployments.stores.accelerators import Abandoned
from deployments.stores.faiss_views import Codec, RowView
from deployments.stores.recall import Sample
from tests.unit.stores.indexed import clustered, ready, scores

DIM = 16


def view_of(vectors: np.ndarray, metric: str = "cosine") -> RowView:
    codec = Codec(DIM, metric, "fp32")
    return RowView(codec, codec.encode(vectors).copy())


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_recall_is_the_share_of_neighbours_that_are_found(metric: str):
    vectors = ready(clustered(20_000, DIM), metric)
    alive = np.arange(20_000) % 2 == 0
    sample = Sample(view_of(vectors, metric), alive, np.arange(0, 200, 2), lambda: True)

    def best(query: np.ndarray, count: int) -> np.ndarray:
        return np.sort(scores(vectors[alive], query, metric))[::-1][:count]

    assert sample.recall(lambda query: best(query, 10)) == 1.0
    assert sample.recall(lambda query: best(query, 7)) == pytest.approx(0.7)
    assert sample.recall(lambda query: best(query, 40)[10:]) < 0.01


def test_queries_are_none_of_the_rows_but_as_near_as_rows_are():
    vectors = ready(clustered(5000, DIM), "cosine")
    sample = Sample(view_of(vectors), np.ones(5000, bool), np.arange(100), lambda: True)
    of_queries = np.sort(sample.queries @ vectors.T, axis=1)
    of_rows = np.sort(vectors[:100] @ vectors.T, axis=1)
    assert of_queries[:, -1].max() < 0.9999
    assert np.median(of_queries[:, -10]) == pytest.approx(np.median(of_rows[:, -11]), abs=0.03)


def test_sample_of_few_rows_or_equal_ones_is_found():
    for count in (1, 3, 12):
        vectors = np.repeat(ready(clustered(1, DIM), "cosine"), count, axis=0)
        sample = Sample(view_of(vectors), np.ones(count, bool), np.arange(count), lambda: True)
        assert sample.recall(lambda query, v=vectors: (v @ query)[:10]) == 1.0
    empty = Sample(view_of(vectors), np.zeros(12, bool), np.arange(0), lambda: True)
    assert empty.recall(lambda query: np.empty(0)) == 1.0


def test_sample_is_abandoned_when_nobody_wants_it():
    vectors = ready(clustered(100, DIM), "cosine")
    with pytest.raises(Abandoned):
        Sample(view_of(vectors), np.ones(100, bool), np.arange(10), lambda: False)
