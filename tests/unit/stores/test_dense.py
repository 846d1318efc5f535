import numpy as np
import pytest

from deployments.stores import dense as module
from deployments.stores.dense import DenseIndex
from tests.unit.stores.material import vector


def index_of(vectors: np.ndarray, first: int = 0) -> DenseIndex:
    index = DenseIndex(vectors.shape[1])
    numbers = np.arange(first, first + len(vectors))
    index.stage(numbers, vectors)
    index.show(numbers)
    return index


def found(index: DenseIndex, query: np.ndarray, limit: int) -> list[int]:
    return [hit.number for hit in index.search(query, limit)]


def test_saved_index_is_the_same_after_loading(vectors: np.ndarray, tmp_path):
    index = index_of(vectors, first=7)
    index.hide(np.array([9, 20]))
    index.save(tmp_path)
    loaded = DenseIndex.load(tmp_path, vectors.shape[1])
    for query in vectors[:5]:
        assert loaded.search(query, 50) == index.search(query, 50)
    loaded.stage(np.array([100]), vectors[:1])
    loaded.show(np.array([100]))
    assert found(loaded, vectors[0], 2) == [7, 100]


@pytest.fixture
def vectors() -> np.ndarray:
    return np.array([vector(str(i)) for i in range(50)])


def test_search_equals_brute_force(vectors: np.ndarray):
    index = index_of(vectors, first=100)
    for query in vectors[:5]:
        expected = 100 + np.argsort(-(vectors @ query), kind="stable")[:7]
        assert found(index, query, 7) == expected.tolist()


def test_staged_rows_do_not_show(vectors: np.ndarray):
    index = index_of(vectors[:10])
    index.stage(np.arange(10, 50), vectors[10:])
    assert len(index) == 10
    assert set(found(index, vectors[20], 50)) == set(range(10))


def test_hidden_rows_do_not_show_and_unknown_ones_are_ignored(vectors: np.ndarray):
    index = index_of(vectors)
    index.hide(np.array([3, 7, 999, -1]))
    assert len(index) == 48
    assert set(found(index, vectors[3], 50)) == set(range(50)) - {3, 7}


def test_equal_scores_come_in_order_wherever_the_limit_cuts():
    index = index_of(np.repeat(vector("same")[np.newaxis], 40, axis=0))
    for limit in (1, 2, 5, 39, 40, 100):
        assert found(index, vector("same"), limit) == list(range(min(limit, 40)))


def test_empty_index_finds_nothing():
    assert found(DenseIndex(8), vector("x"), 5) == []


def test_cosines_equal_the_search_and_stay_in_bounds(vectors: np.ndarray):
    index = index_of(vectors)
    hits = index.search(vectors[0], 50)
    numbers = np.array([hit.number for hit in hits])
    assert index.cosines(vectors[0], numbers) == [hit.score for hit in hits]
    assert max(hit.score for hit in hits) <= 1.0
    assert index.cosines(vectors[0], np.empty(0, dtype=np.int64)) == []


def test_compaction_keeps_answers_and_frees_memory(vectors: np.ndarray, monkeypatch):
    monkeypatch.setattr(module, "MIN_DEAD_ROWS", 10)
    index = index_of(vectors)
    index.hide(np.arange(0, 50, 2))
    before, num_bytes = index.search(vectors[1], 50), index.num_bytes
    index.compact()
    assert index.num_bytes <= num_bytes // 2 + 1
    assert index.search(vectors[1], 50) == before
    index.hide(np.array([1]))
    index.stage(np.array([60]), vectors[:1])
    index.show(np.array([60]))
    assert set(found(index, vectors[1], 50)) == {60, *range(3, 50, 2)}


def test_compaction_of_everything_leaves_a_working_index(vectors: np.ndarray, monkeypatch):
    monkeypatch.setattr(module, "MIN_DEAD_ROWS", 10)
    index = index_of(vectors)
    index.hide(np.arange(50))
    index.compact()
    assert (len(index), index.num_bytes) == (0, 0)
    index.stage(np.array([50]), vectors[:1])
    index.show(np.array([50]))
    assert found(index, vectors[0], 5) == [50]
