import numpy as np
import pytest

from deployments.stores.rows import Rows
from tests.unit.stores.indexed import clustered, ready

DIM = 12


@pytest.fixture
def vectors() -> np.ndarray:
    return ready(clustered(5000, DIM), "cosine")


@pytest.mark.parametrize(
    ("storage", "size", "error"), [("fp32", 4, 0.0), ("fp16", 2, 1e-3), ("int8", 1, 1e-2)]
)
def test_rows_take_as_much_memory_as_they_should(vectors: np.ndarray, storage, size, error):
    rows = Rows(DIM, "cosine", storage)
    for first in range(0, 5000, 100):
        rows.append(vectors[first : first + 100])
    assert np.abs(rows.view.vectors(slice(None)) - vectors).max() <= error
    assert rows.num_bytes <= 1.13 * 5000 * DIM * size


def test_view_outlives_whatever_is_appended(vectors: np.ndarray):
    rows = Rows(DIM, "cosine", "fp32")
    rows.append(vectors[:10])
    view = rows.view
    for first in range(10, 5000, 10):
        rows.append(vectors[first : first + 10])
    assert np.array_equal(view.vectors(slice(None)), vectors[:10])
    assert view.scores(vectors[0], np.arange(10)) == pytest.approx(vectors[:10] @ vectors[0])
    assert np.array_equal(rows.view.vectors(slice(None)), vectors)


def test_int8_begins_as_fp32_until_there_is_a_sample(vectors: np.ndarray):
    rows = Rows(DIM, "cosine", "int8", min_training_rows=100)
    rows.append(vectors[:99])
    assert np.array_equal(rows.view.vectors(slice(None)), vectors[:99])
    rows.append(vectors[99:101])
    assert rows.view.codec.storage == "int8"
    assert len(rows.view) == 101
    assert np.abs(rows.view.vectors(np.array([0, 100])) - vectors[[0, 100]]).max() < 0.02
    rows.append(np.full((1, DIM), 50, dtype=np.float32))  # beyond every range
    assert np.isfinite(rows.view.vectors(slice(None))).all()


@pytest.mark.parametrize("storage", ["fp32", "fp16", "int8"])
def test_only_some_rows_are_kept(vectors: np.ndarray, storage):
    rows = Rows(DIM, "cosine", storage)
    rows.append(vectors)
    kept = np.arange(1, 5000, 3)
    some = rows.only(kept)
    before, after = rows.view.vectors(kept), some.view.vectors(slice(None))
    assert np.array_equal(before, after)
    some.append(vectors[:1])
    assert len(some.view) == len(kept) + 1
