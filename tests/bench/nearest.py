"""What a dense search costs in a replica's memory, against bare FAISS on the same index.

    python -m tests.bench.nearest --rows 1000000 --kinds ivfpq hnsw --storages fp32 int8

The vectors are those of `tests.bench.vectors`. Each row of the table is one follower, without a
database: no SQL is in its times. Bare FAISS searches the very same graph or lists (`IndexRefine`
over the same row store for lists) with the parameters that the follower found; both are asked in
turns. Recall is against the true neighbours by fp32, whatever the storage.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from deployments.stores.changes import Head
from deployments.stores.dense import DenseIndex
from deployments.stores.faiss_views import faiss
from deployments.stores.follower import Follower
from deployments.stores.indexes import Indexes
from deployments.stores.lexical import LexicalIndex
from deployments.stores.lists_index import OVERSAMPLING
from deployments.stores.metadata import MetadataIndex
from deployments.types import IndexSettings, SearchRequest
from tests.bench import vectors as made

K = 10
BATCH = 2000
COLUMNS = (
    "index",
    "effort",
    "recall@10",
    "own estimate",
    "p50 ms",
    "p99 ms",
    "÷ bare",
    "build s",
    "bytes ÷ raw",
    "save s",
    "load s",
)

Search = Callable[[NDArray[np.float32]], list[int]]


def filled(vectors: NDArray[np.float32], kind: Any, storage: Any) -> tuple[Follower, DenseIndex]:
    settings = IndexSettings(kind=kind, storage=storage)
    dense = DenseIndex(vectors.shape[1], settings=settings)
    for first in range(0, len(vectors), BATCH):
        numbers = np.arange(first, min(first + BATCH, len(vectors)))
        dense.stage(numbers, vectors[first : first + BATCH])
        dense.show(numbers)
    head = Head("c", 1, 0, vectors.shape[1], "model", index=settings)
    return Follower(head, Indexes(dense, LexicalIndex(), MetadataIndex()), 1), dense


def inside(follower: Follower) -> Search:
    request = SearchRequest(collection="c", mode="dense", top_k=K)

    def search(query: NDArray[np.float32]) -> list[int]:
        hits = follower.search(request, query, limit=K, depth=100, rrf_k=60)
        return [hit.number for hit in hits]

    return search


def bare(dense: DenseIndex) -> Search:
    """Return FAISS's own search of what the follower searches."""
    frozen = dense.frozen()
    view, built = frozen.view, frozen.built
    index, parameters = view.index, None
    if built is not None and built.accelerator.kind == "hnsw":
        index = built.accelerator._index
        parameters = faiss.SearchParametersHNSW(efSearch=built.accelerator.effort)
    elif built is not None:
        lists = built.accelerator._index
        index = faiss.IndexRefine(lists, view.index)
        parameters = faiss.IndexRefineSearchParameters(
            k_factor=OVERSAMPLING,
            base_index_params=faiss.SearchParametersIVF(nprobe=built.accelerator.effort),
        )

    def search(query: NDArray[np.float32]) -> list[int]:
        faiss.omp_set_num_threads(1)
        rows: list[int] = index.search(query[np.newaxis], K, params=parameters)[1][0].tolist()
        return rows

    search.keep = (frozen, index)  # type: ignore[attr-defined]
    return search


def in_turns(
    searches: list[Search], asked: NDArray[np.float32]
) -> list[tuple[list[float], list[list[int]]]]:
    """Return times in ms and rows found of each search, for the queries in their order.

    The searches take turns with different queries: none finds in the processor's caches what
    another one has just read for the same query.
    """
    num_queries, apart = len(asked), len(asked) // len(searches)
    times = np.zeros((len(searches), num_queries))
    found: list[list[list[int]]] = [[[]] * num_queries for _ in searches]
    for turn in range(-20, num_queries):  # the first ones warm up
        for which, search in enumerate(searches):
            query = (turn + which * apart) % num_queries
            start_s = time.perf_counter()
            rows = search(asked[query])
            times[which, query] = (time.perf_counter() - start_s) * 1000
            found[which][query] = rows
    return list(zip(times.tolist(), found, strict=True))


def recall(found: list[list[int]], truth: NDArray[np.int64]) -> float:
    same = sum(len(set(rows) & set(true)) for rows, true in zip(found, truth.tolist(), strict=True))
    return same / truth.size


@contextmanager
def timed(times: dict[str, float], name: str) -> Iterator[None]:
    start_s = time.perf_counter()
    yield
    times[name] = time.perf_counter() - start_s


def measure(
    data: NDArray[np.float32],
    asked: NDArray[np.float32],
    truth: NDArray[np.int64],
    kind: str,
    storage: str,
    num_threads: int,
) -> tuple[str, ...]:
    took: dict[str, float] = {}
    before = psutil.Process().memory_info().rss
    with timed(took, "append"):
        follower, dense = filled(data, kind, storage)
    with timed(took, "build"):
        follower.improve(num_threads=num_threads)
    held = psutil.Process().memory_info().rss - before
    stats = follower.index_stats()
    print(
        f"{kind} {storage}: {took}, resident +{held / data.nbytes:.2f} of raw, {stats}", flush=True
    )
    (times, found), (bare_times, _) = in_turns([inside(follower), bare(dense)], asked)
    with tempfile.TemporaryDirectory() as folder:
        with timed(took, "save"):
            dense.save(Path(folder))
        with timed(took, "load"):
            settings = IndexSettings(kind=kind, storage=storage)  # type: ignore[arg-type]
            loaded = DenseIndex.load(Path(folder), data.shape[1], settings=settings)
        assert len(loaded) == len(data)
    estimate = "exact" if stats.recall_at_10 is None else f"{stats.recall_at_10:.3f}"
    return (
        f"{stats.kind} {storage}",
        str(stats.nprobe or stats.ef_search or ""),
        f"{recall(found, truth):.3f}",
        estimate,
        f"{statistics.median(times):.2f}",
        f"{np.percentile(times, 99):.2f}",
        f"{statistics.median(times) / statistics.median(bare_times):.2f}",
        f"{took['build']:.0f}",
        f"{stats.num_bytes / data.nbytes:.2f}",
        f"{took['save']:.1f}",
        f"{took['load']:.1f}",
    )


def main() -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2, help="of the build")
    parser.add_argument("--kinds", nargs="+", default=["auto"])
    parser.add_argument("--storages", nargs="+", default=["fp32", "int8"])
    args = parser.parse_args()
    source = made.topics(args.rows, args.dim)
    data = np.concatenate(list(made.parts(source, args.rows)))
    asked = made.queries(source, args.queries)
    truth = made.nearest(data, asked, K)
    print(f"intrinsic dimension {made.intrinsic_dimension(data, asked[:100]):.1f}", flush=True)
    table = Table(*COLUMNS, title=f"{args.rows} × {args.dim}, top {K}")
    for kind in args.kinds:
        for storage in args.storages:
            row = measure(data, asked, truth, kind, storage, args.threads)
            print(" | ".join(row), flush=True)
            table.add_row(*row)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
