"""One other embedded vector database over saved vectors; run by `tests.bench.peers`.

    python -P tests/bench/peer.py qdrant|lancedb FOLDER

Needs numpy and that peer only. Reads `data.npy`, `asked.npy` and `truth.npy` (int64[queries, 10])
of the folder, and prints one JSON object per index: its name, seconds to build, recall and times. A
missing peer is said so, with status 3.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

K = 10
BATCH = 10_000
MISSING = 3
WARM = 10
TARGET = 0.95
"""Of the efforts tried, the least that reaches this recall is reported."""


def report(name: str, build_s: float, search: Callable[[Any], Any], folder: Path) -> float:
    asked, truth = np.load(folder / "asked.npy"), np.load(folder / "truth.npy")
    for query in asked[:WARM]:
        search(query)
    times, same = [], 0
    for query, true in zip(asked, truth.tolist(), strict=True):
        start_s = time.perf_counter()
        rows = search(query)
        times.append((time.perf_counter() - start_s) * 1000)
        same += len(set(rows) & set(true))
    measured = {
        "name": name,
        "build_s": build_s,
        "recall": same / truth.size,
        "p50_ms": float(np.percentile(times, 50)),
        "p99_ms": float(np.percentile(times, 99)),
    }
    print(json.dumps(measured), flush=True)
    return same / truth.size


def qdrant(folder: Path) -> None:
    from qdrant_client import QdrantClient, models

    data = np.load(folder / "data.npy", mmap_mode="r")
    client = QdrantClient(":memory:")
    distance = models.Distance.COSINE
    size = models.VectorParams(size=data.shape[1], distance=distance)
    start_s = time.perf_counter()
    client.create_collection("c", vectors_config=size)
    for first in range(0, len(data), BATCH):
        part = np.asarray(data[first : first + BATCH])
        client.upload_collection("c", vectors=part, ids=range(first, first + len(part)))
    build_s = time.perf_counter() - start_s

    def search(query: Any) -> list[int]:
        found = client.query_points("c", query=query.tolist(), limit=K, with_payload=False)
        return [point.id for point in found.points]

    report("qdrant local mode (exact)", build_s, search, folder)


def lancedb(folder: Path) -> None:
    import lancedb
    import pyarrow as pa

    data = np.load(folder / "data.npy", mmap_mode="r")
    dim = data.shape[1]
    schema = pa.schema([("id", pa.int64()), ("vector", pa.list_(pa.float32(), dim))])

    def batches() -> Iterator[Any]:
        for first in range(0, len(data), BATCH):
            part = np.asarray(data[first : first + BATCH])
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), dim)
            ids = pa.array(np.arange(first, first + len(part)))
            yield pa.record_batch([ids, vectors], schema=schema)

    database = lancedb.connect(folder / "lance")
    start_s = time.perf_counter()
    table = database.create_table("c", data=batches(), schema=schema)
    table.create_index(
        metric="cosine",
        num_partitions=max(1, int(len(data) ** 0.5)),
        num_sub_vectors=dim // 8 if dim % 8 == 0 else dim,
        vector_column_name="vector",
    )
    build_s = time.perf_counter() - start_s
    for nprobes in (20, 50, 100, 200):

        def search(query: Any, nprobes: int = nprobes) -> list[int]:
            asked = table.search(query).distance_type("cosine").select(["id"]).limit(K)
            found = asked.nprobes(nprobes).refine_factor(20).to_arrow()
            return list(found["id"].to_pylist())

        name = f"lancedb IVF-PQ, nprobes {nprobes}, refined 20 x"
        if report(name, build_s, search, folder) >= TARGET:
            return


def main() -> None:
    peer, folder = sys.argv[1], Path(sys.argv[2])
    try:
        {"qdrant": qdrant, "lancedb": lancedb}[peer](folder)
    except ModuleNotFoundError as error:
        if error.name not in ("qdrant_client", "lancedb"):
            raise
        print(error, file=sys.stderr)
        sys.exit(MISSING)


if __name__ == "__main__":
    main()
