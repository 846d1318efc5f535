"""Every kind of index, way of holding vectors and metric, against brute force."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deployments.stores.dense import DenseIndex
from deployments.types import IndexSettings
from tests.unit.stores.indexed import (
    CHOICES,
    SMALL,
    add,
    clustered,
    improve,
    index_of,
    ready,
    scores,
)

DIM = 24
EXACT = {"fp32": 1e-5, "fp16": 2e-3, "int8": 2e-2}
"""By how much a score may differ from that of the vectors themselves, per unit of their size."""


def expected(vectors: np.ndarray, query: np.ndarray, metric: str, alive: np.ndarray) -> np.ndarray:
    values = scores(vectors, query, metric)
    values[~alive] = -np.inf
    return np.argsort(-values, kind="stable")


@pytest.mark.parametrize(("kind", "storage", "metric"), CHOICES)
def test_search_finds_what_brute_force_finds(kind, storage, metric, tmp_path: Path):
    vectors = ready(clustered(2000, DIM), metric)
    index = index_of(vectors, kind, storage, metric)
    assert index.stats().kind == kind
    assert index.stats().num_indexed == (0 if kind == "flat" else 2000)
    index.hide(np.arange(0, 2000, 3))
    tail = ready(clustered(37, DIM, seed=5), metric)
    add(index, tail, 2000)
    vectors = np.concatenate([vectors, tail])
    alive = np.arange(2037) % 3 != 0
    alive[2000:] = True
    found = total = 0
    for query in ready(clustered(30, DIM, seed=7), metric):
        hits = index.search(query, 10)
        order = expected(vectors, query, metric, alive)[:10]
        numbers = [hit.number for hit in hits]
        assert len(numbers) == len(set(numbers)) == 10
        assert all(alive[numbers])
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        truth = scores(vectors, query, metric)[numbers]
        size = max(1.0, float(np.abs(vectors).max()) ** 2 * DIM)
        assert [hit.score for hit in hits] == pytest.approx(truth, abs=EXACT[storage] * size)
        found += len(set(numbers) & set(order.tolist()))
        total += 10
        if (kind, storage) == ("flat", "fp32"):
            assert numbers == order.tolist()
    assert found / total > (0.9 if storage == "int8" else 0.95)
    index.save(tmp_path)
    loaded = DenseIndex.load(
        tmp_path, DIM, metric, IndexSettings(kind=kind, storage=storage), SMALL
    )
    assert replace(loaded.stats(), num_bytes=0) == replace(index.stats(), num_bytes=0)
    for query in ready(clustered(5, DIM, seed=8), metric):
        assert loaded.search(query, 10) == index.search(query, 10)
    add(loaded, tail, 3000)
    newest = [h.number for h in loaded.search(tail[0], len(loaded)) if h.number >= 3000]
    assert len(newest) == len(tail)


@pytest.mark.parametrize(("kind", "storage", "metric"), CHOICES)
def test_cosine_is_the_cosine_whatever_the_metric(kind, storage, metric):
    vectors = ready(clustered(600, DIM), metric)
    index = index_of(vectors, kind, storage, metric)
    query = ready(clustered(1, DIM, seed=3), metric)[0]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    truth = unit @ (query / np.linalg.norm(query))
    hits = index.search(query, 20)
    numbers = np.array([hit.number for hit in hits])
    assert [hit.cosine for hit in hits] == pytest.approx(truth[numbers], abs=EXACT[storage])
    assert index.cosines(query, numbers) == pytest.approx([hit.cosine for hit in hits], abs=1e-6)
    middle = float(np.median([hit.cosine for hit in hits]))
    kept = index.search(query, 20, least=middle)
    assert [hit for hit in hits if hit.cosine >= middle] == kept


@pytest.mark.parametrize(("kind", "storage", "metric"), CHOICES)
def test_one_row_in_10_000_is_found(kind, storage, metric):
    vectors = np.tile(ready(clustered(1000, DIM), metric), (10, 1))
    index = index_of(vectors, kind, storage, metric, batch=2000)
    for wanted in ([7], [9_999], [4, 5_000, 9_998]):
        mask = np.zeros(10_000, dtype=bool)
        mask[wanted] = True
        hits = index.search(vectors[0], 10, index.select(mask))
        assert sorted(hit.number for hit in hits) == wanted


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
@pytest.mark.parametrize("share", [0.5, 0.05])
def test_filtered_search_returns_as_many_as_there_are(kind, share):
    vectors = ready(clustered(8000, DIM), "cosine")
    index = index_of(vectors, kind, batch=4000)
    mask = np.random.default_rng(1).random(8000) < share
    found = 0
    for query in ready(clustered(10, DIM, seed=4), "cosine"):
        numbers = [hit.number for hit in index.search(query, 50, index.select(mask))]
        assert len(numbers) == 50
        assert mask[numbers].all()
        order = expected(vectors, query, "cosine", mask)[:50]
        found += len(set(numbers) & set(order.tolist()))
    assert found > 0.9 * 500
    everything = index.search(vectors[0], 8000, index.select(mask))
    assert sorted(hit.number for hit in everything) == np.flatnonzero(mask).tolist()


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivfpq"])
@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("dim", [1, 3, 4096])
def test_any_dimension_can_be_searched(kind, metric, dim):
    vectors = ready(clustered(400, dim), metric)
    index = index_of(vectors, kind, metric=metric)
    assert index.stats().kind == kind
    for row in (0, 17, 399):
        best = scores(vectors, vectors[row], metric).max()
        assert index.search(vectors[row], 5)[0].score == pytest.approx(best, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(("kind", "storage", "metric"), CHOICES)
def test_equal_vectors_are_all_found(kind, storage, metric):
    vectors = np.repeat(ready(clustered(1, DIM), metric), 1500, axis=0)
    index = index_of(vectors, kind, storage, metric)
    assert len(index.search(vectors[0], 10)) == 10
    assert sorted(h.number for h in index.search(vectors[0], 1500)) == list(range(1500))
    if kind == "flat":
        assert [hit.number for hit in index.search(vectors[0], 10)] == list(range(10))


@pytest.mark.parametrize(("kind", "storage", "metric"), CHOICES)
@pytest.mark.parametrize("count", [0, 1, 9])
def test_few_rows_are_searched_exactly(kind, storage, metric, count):
    vectors = ready(clustered(9, DIM), metric)
    index = index_of(vectors[:count], kind, storage, metric)
    assert index.stats().kind == "flat"
    assert len(index.search(vectors[0], 5)) == min(5, count)
    assert index.stats().recall_at_10 is None


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
def test_everything_deleted_leaves_nothing_to_find(kind):
    vectors = ready(clustered(600, DIM), "cosine")
    index = index_of(vectors, kind)
    index.hide(np.arange(600))
    assert index.search(vectors[0], 10) == []
    add(index, vectors[:1], 600)
    assert [hit.number for hit in index.search(vectors[0], 10)] == [600]
    index.hide(np.array([600]))
    assert improve(index) == 0


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
def test_tail_is_added_to_the_index(kind):
    vectors = ready(clustered(1000, DIM), "cosine")
    index = index_of(vectors[:600], kind)
    built_at = index.stats().built_at
    for first in range(600, 1000, 20):
        add(index, vectors[first : first + 20], first)
        assert index.search(vectors[first], 1)[0].number == first
    assert index.stats().num_indexed == 600
    assert improve(index) == 1
    stats = index.stats()
    assert (stats.num_indexed, stats.num_rows) == (1000, 1000)
    assert stats.recall_at_10 > 0.9
    assert stats.built_at > built_at
    for row in (3, 700, 999):
        assert index.search(vectors[row], 1)[0].number == row


def test_auto_grows_from_exact_to_graph_to_lists():
    vectors = ready(clustered(5000, DIM), "cosine")
    index = index_of(vectors[:504])
    assert index.stats().kind == "flat"
    add(index, vectors[504:520], 504)
    improve(index)
    assert index.stats().kind == "hnsw"
    assert index.stats().ef_search is not None
    assert index.stats().nprobe is None
    add(index, vectors[520:], 520)
    improve(index)
    assert index.stats().kind == "ivfpq"
    assert index.stats().nprobe is not None


def test_auto_stays_exact_where_an_index_finds_too_little():
    random = np.random.default_rng(0).standard_normal((800, 256)).astype(np.float32)
    limits = type(SMALL)(auto_graph_rows=512, min_auto_recall=1.1)
    index = index_of(ready(random, "cosine"), limits=limits)
    assert index.stats().kind == "flat"
    assert index.plan() is None
    add(index, ready(random, "cosine"), 800)
    assert index.plan() is not None


def test_more_effort_finds_more():
    vectors = ready(np.random.default_rng(0).standard_normal((4000, 64)), "cosine")
    vectors = vectors.astype(np.float32)
    index = index_of(vectors, "ivfpq")

    def recall(**effort: int) -> float:
        found = 0
        for query in vectors[:40]:
            order = np.argsort(-(vectors @ query))[:10]
            numbers = [hit.number for hit in index.search(query, 10, **effort)]
            found += len(set(numbers) & set(order.tolist()))
        return found / 400

    assert recall(nprobe=1) < recall(nprobe=8) < recall(nprobe=64)
    assert recall(nprobe=1, ef_search=1000) == recall(nprobe=1)
    graph = index_of(vectors, "hnsw")
    hits = graph.search(vectors[0], 10, ef_search=1)
    assert graph.search(vectors[0], 10, ef_search=1, nprobe=100) == hits


@pytest.mark.parametrize(
    ("dim", "metric", "settings"),
    [
        (8, "cosine", IndexSettings()),
        (DIM, "dot", IndexSettings()),
        (DIM, "cosine", IndexSettings(storage="fp16")),
        (DIM, "cosine", IndexSettings(kind="flat")),
    ],
)
def test_saved_index_of_other_settings_is_refused(tmp_path: Path, dim, metric, settings):
    index_of(ready(clustered(10, DIM), "cosine")).save(tmp_path)
    with pytest.raises(ValueError, match="other settings"):
        DenseIndex.load(tmp_path, dim, metric, settings)


@pytest.mark.parametrize("file", ["rows.bin", "alive.npy"])
def test_saved_files_of_different_indexes_are_refused(tmp_path: Path, file: str):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    index_of(ready(clustered(100, DIM), "cosine")).save(tmp_path / "a")
    index_of(ready(clustered(10, DIM), "cosine")).save(tmp_path / "b")
    (tmp_path / "b" / file).rename(tmp_path / "a" / file)
    with pytest.raises(ValueError, match="belong together"):
        DenseIndex.load(tmp_path / "a", DIM)
