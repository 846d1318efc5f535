"""Dense indexes small enough for a test that take the paths of large ones."""

import numpy as np

from deployments.stores.dense import DenseIndex
from deployments.stores.plans import Limits
from deployments.types import IndexKind, IndexSettings, Metric, VectorStorage

SMALL = Limits(
    min_graph_rows=64,
    min_lists_rows=256,
    auto_graph_rows=512,
    auto_lists_rows=4096,
    min_tail=64,
    cost_factor=0.0,
)

CHOICES = [
    (kind, storage, metric)
    for kind in ("flat", "hnsw", "ivfpq")
    for storage in ("fp32", "fp16", "int8")
    for metric in ("cosine", "dot", "l2")
    if storage != "int8" or metric == "cosine"
]


def clustered(count: int, dim: int, seed: int = 0) -> np.ndarray:
    """Return points around some centres; of any length."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((20, dim))
    chosen = centres[random.integers(20, size=count)]
    return (chosen + 0.4 * random.standard_normal((count, dim))).astype(np.float32)


def ready(vectors: np.ndarray, metric: Metric) -> np.ndarray:
    if metric != "cosine":
        return vectors
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def scores(vectors: np.ndarray, query: np.ndarray, metric: Metric) -> np.ndarray:
    if metric == "l2":
        return -((vectors - query) ** 2).sum(axis=1)
    return vectors @ query


def index_of(
    vectors: np.ndarray,
    kind: IndexKind = "auto",
    storage: VectorStorage = "fp32",
    metric: Metric = "cosine",
    *,
    limits: Limits = SMALL,
    batch: int = 500,
) -> DenseIndex:
    """Return an index of the vectors by number, with everything built that is due."""
    settings = IndexSettings(kind=kind, storage=storage)
    index = DenseIndex(vectors.shape[1], metric, settings, limits)
    for first in range(0, len(vectors), batch):
        add(index, vectors[first : first + batch], first)
    improve(index)
    return index


def add(index: DenseIndex, vectors: np.ndarray, first: int) -> None:
    numbers = np.arange(first, first + len(vectors))
    index.stage(numbers, vectors)
    index.show(numbers)


def improve(index: DenseIndex) -> int:
    """Do all that is due; return how many pieces of work it was."""
    done = 0
    while (plan := index.plan()) is not None:
        frozen = index.frozen()
        index.adopt(frozen.build(plan, lambda: True, 1), frozen)
        done += 1
        assert done < 5
    return done
