"""Dense search here and in other embedded vector databases, on the same vectors and queries.

    python -m tests.bench.peers --python VENV/bin/python --rows 1000000

VENV has numpy and any of `qdrant-client` (its local mode is exact) and `lancedb` (IVF-PQ on disk).
A peer that it lacks is left out, and said so. Ours runs last, in this process; nobody else runs
meanwhile. Each loads the same file; no peer is tuned beyond the number of lists that it looks at.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from tests.bench import nearest, peer
from tests.bench import vectors as made

PEERS = ("qdrant", "lancedb")

Measured = dict[str, float | str]


def others(python: str, folder: Path) -> list[Measured]:
    measured: list[Measured] = []
    for name in PEERS:
        command = [python, "-P", str(Path(peer.__file__)), name, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == peer.MISSING:
            print(f"{name} is left out: {done.stderr.strip()}")
        elif done.returncode:
            print(f"{name} failed: {done.stderr.strip()[-2000:]}")
        print(done.stdout, end="", flush=True)
        measured += [json.loads(line) for line in done.stdout.splitlines()]
    return measured


def ours(folder: Path, kind: str, storage: str) -> Measured:
    data = np.load(folder / "data.npy", mmap_mode="r")
    start_s = time.perf_counter()
    follower, _ = nearest.filled(data, kind, storage)
    follower.improve(num_threads=2)
    build_s = time.perf_counter() - start_s
    asked, truth = np.load(folder / "asked.npy"), np.load(folder / "truth.npy")
    ((times, found),) = nearest.in_turns([nearest.inside(follower)], asked)
    stats = follower.index_stats()
    return {
        "name": f"ragserve {stats.kind} {storage}",
        "build_s": build_s,
        "recall": nearest.recall(found, truth),
        "p50_ms": float(np.percentile(times, 50)),
        "p99_ms": float(np.percentile(times, 99)),
    }


def main() -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="of an environment with peers")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--kinds", nargs="+", default=["flat", "auto"])
    parser.add_argument("--storages", nargs="+", default=["fp32", "int8"])
    args = parser.parse_args()
    source = made.topics(args.rows, args.dim)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = np.concatenate(list(made.parts(source, args.rows)))
        asked = made.queries(source, args.queries)
        np.save(folder / "data.npy", data)
        np.save(folder / "asked.npy", asked)
        np.save(folder / "truth.npy", made.nearest(data, asked, peer.K))
        del data
        measured = others(args.python, folder)
        measured += [ours(folder, kind, s) for kind in args.kinds for s in args.storages]
    table = Table("index", "recall@10", "p50 ms", "p99 ms", "build s")
    for row in measured:
        numbers = (f"{row['recall']:.3f}", f"{row['p50_ms']:.2f}", f"{row['p99_ms']:.2f}")
        table.add_row(str(row["name"]), *numbers, f"{row['build_s']:.1f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
