"""Building an index beside searches and changes."""

import threading

import numpy as np
import pytest

from deployments.errors import InvalidRequest
from deployments.stores import tuning
from deployments.stores.changes import Head
from deployments.stores.follower import Follower
from deployments.types import IndexSettings, SearchRequest
from tests.unit.stores.indexed import SMALL, clustered, ready

DIM = 16
VECTORS = ready(clustered(3000, DIM), "cosine")


def follower_of(kind: str, count: int = 1000) -> Follower:
    head = Head("id", 1, 0, DIM, "model", index=IndexSettings(kind=kind))
    follower = Follower(head, limits=SMALL)
    add(follower, 0, count)
    return follower


def add(follower: Follower, first: int, last: int) -> None:
    """Change a follower as `follow` does, without a database."""
    with follower._lock.writing():
        numbers = np.arange(first, last)
        follower._indexes.dense.stage(numbers, VECTORS[first:last])
        follower._indexes.dense.show(numbers)


def found(follower: Follower, query: np.ndarray, top_k: int = 10, **options: int) -> list[int]:
    request = SearchRequest(collection="c", mode="dense", top_k=top_k, **options)
    hits = follower.search(request, query, limit=top_k, depth=100, rrf_k=60)
    return [hit.number for hit in hits]


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
def test_searches_and_changes_go_on_while_an_index_is_built(kind: str):
    follower = follower_of(kind)
    errors: list[BaseException] = []
    last, is_done = [1000], threading.Event()

    def search() -> None:
        random = np.random.default_rng()
        try:
            while not is_done.is_set():
                row = int(random.integers(last[0]))
                assert found(follower, VECTORS[row])[0] == row
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    num_built = 0
    for first in range(1000, 3000, 100):
        improving = threading.Thread(target=follower.improve)
        improving.start()
        add(follower, first, first + 100)
        last[0] = first + 100
        improving.join()
        num_built = max(num_built, follower.index_stats().num_indexed)
    is_done.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert num_built > 2000
    assert follower.index_stats().recall_at_10 > 0.9


def test_improvement_is_done_once():
    follower = follower_of("hnsw")
    assert follower.improve()
    assert follower.index_stats().num_indexed == 1000
    assert not follower.improve()
    assert not follower_of("flat").improve()


def test_abandoned_improvement_changes_nothing():
    follower = follower_of("hnsw")
    assert not follower.improve(lambda: False)
    assert follower.index_stats().kind == "flat"
    assert follower.improve()


def test_index_of_rows_that_were_compacted_meanwhile_is_dropped(monkeypatch):
    follower = follower_of("hnsw", 3000)
    real = tuning.tune

    def tune(*args: object) -> float:
        with follower._lock.writing():
            dense = follower._indexes.dense
            dense.hide(np.arange(2000))
            assert dense.compact() is not None
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(tuning, "tune", tune)
        follower.improve()
    assert follower.index_stats().kind == "flat"
    assert found(follower, VECTORS[2500])[0] == 2500
    assert follower.improve()
    assert found(follower, VECTORS[2500])[0] == 2500


def test_rebuild_is_wanted_when_a_third_is_dead():
    follower = follower_of("hnsw", 3000)
    follower.improve()
    with follower._lock.writing():
        follower._indexes.dense.hide(np.arange(1000))
        assert follower._indexes.dense.compact() is None
    assert (follower.num_dead, follower.wants_rebuild) == (1000, False)
    with follower._lock.writing():
        follower._indexes.dense.hide(np.arange(1000, 1100))
    assert follower.wants_rebuild


@pytest.mark.parametrize(
    ("kind", "option"),
    [("flat", "nprobe"), ("flat", "ef_search"), ("hnsw", "nprobe"), ("ivfpq", "ef_search")],
)
def test_effort_that_can_never_matter_is_refused(kind: str, option: str):
    with pytest.raises(InvalidRequest) as caught:
        found(follower_of(kind, 10), VECTORS[0], **{option: 5})
    assert caught.value.param == option


@pytest.mark.parametrize("kind", ["auto", "hnsw"])
def test_effort_of_a_small_collection_is_taken(kind: str):
    assert found(follower_of(kind, 10), VECTORS[3], ef_search=5)[0] == 3
