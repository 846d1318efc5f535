"""How soon a replica answers from a snapshot, and what its searches cost, in a large collection.

    python -m tests.bench.start --rows 1000000

The vectors are those of `tests.bench.vectors`, the texts 20 to 100 words by Zipf's law, drawn
independently: no word goes with another, which is the hardest case for a search by words, and of a
question's six words one or two are in half of all texts. One process
imports them, loads the collection from its log, builds its index and writes a snapshot, as every
replica does while it answers; another one then starts, and its times are taken from the making of
the replica (the modules are loaded) to its first answer. Then it is asked in turns by each mode.
With `--keep` the state folder stays, and a later run with it only starts and asks.
"""

import argparse
import asyncio
import io
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from deployments.config import RetrieverArgs, Settings
from deployments.retriever import Retriever
from deployments.stores.collections import CollectionStore
from deployments.stores.database import Database
from deployments.stores.imports import Import
from deployments.stores.migrations import migrate
from deployments.stores.suppressions import Suppressions
from deployments.types import CollectionSettings, SearchRequest
from tests.bench import vectors as made

COLLECTION = "bench"
MODEL = "bench"
NUM_WORDS = 20_000
WORDS_PER_TEXT = (20, 100)
WORDS_PER_QUESTION = (6, 6)
MODES: tuple[Any, ...] = ("dense", "lexical", "hybrid")
START_GOAL_S = 15.0
HYBRID_GOAL = 2.0
CHECK_PERIOD_S = 2.0


def texts(random: np.random.Generator, count: int, num_words: tuple[int, int]) -> list[str]:
    """Return texts of so many words by Zipf's law."""
    bounds = np.cumsum(1 / np.arange(1, NUM_WORDS + 1))
    ends = np.cumsum(random.integers(*num_words, count, endpoint=True))
    words = np.searchsorted(bounds / bounds[-1], random.random(ends[-1])).tolist()
    starts = [0, *ends[:-1].tolist()]
    parts = (words[start:end] for start, end in zip(starts, ends.tolist(), strict=True))
    return [" ".join(f"w{word}" for word in part) for part in parts]


def parquet(first: int, vectors: NDArray[np.float32]) -> io.BytesIO:
    """Return a plain table of documents of one chunk each."""
    count, dim = vectors.shape
    table = pa.table(
        {
            "id": [f"d{first + i}" for i in range(count)],
            "text": texts(np.random.default_rng(first), count, WORDS_PER_TEXT),
            "vector": pa.FixedSizeListArray.from_arrays(vectors.ravel(), dim),
        }
    )
    file = io.BytesIO()
    pq.write_table(table, file)
    file.seek(0)
    return file


def fill(num_rows: int, dim: int) -> None:
    """Import everything into the state folder, and let a replica write its snapshot."""
    url = Settings().database
    migrate(url)
    database = Database(url)
    settings = CollectionSettings(embedding_model=MODEL, dim=dim)
    CollectionStore(database).create(COLLECTION, settings)
    source = made.topics(num_rows, dim)
    importing_s = 0.0
    for number, part in enumerate(made.parts(source, num_rows)):
        file = parquet(number * made.PART, part)
        start_s = time.perf_counter()
        Import(database, Suppressions(bytes(32)), COLLECTION).run(file)
        importing_s += time.perf_counter() - start_s
    database.close()
    print(f"imported {num_rows / importing_s:.0f} rows/s", flush=True)
    asyncio.run(save_snapshot(made.queries(source, 1)))


async def save_snapshot(query: NDArray[np.float32]) -> None:
    """Load the collection, and wait until its index is built and saved."""
    replica = Retriever(RetrieverArgs())
    start_s = time.perf_counter()
    await replica.search(request("dense", "w1"), (query, [1]), MODEL)
    loaded_s = time.perf_counter()
    print(f"loaded from the log in {loaded_s - start_s:.0f} s", flush=True)
    while not (await replica.stats()).num_snapshots_saved:
        await asyncio.sleep(CHECK_PERIOD_S)
    print(f"indexed and saved in {time.perf_counter() - loaded_s:.0f} s more", flush=True)
    replica.close()


def request(mode: Any, question: str) -> SearchRequest:
    return SearchRequest(collection=COLLECTION, query=question, mode=mode)


async def ask(num_rows: int, dim: int, num_queries: int) -> None:
    """Start a replica, and print its times."""
    queries = made.queries(made.topics(num_rows, dim), num_queries)
    questions = texts(np.random.default_rng(0), num_queries, WORDS_PER_QUESTION)
    start_s = time.perf_counter()
    replica = Retriever(RetrieverArgs())

    async def search(mode: Any, number: int) -> float:
        embedded = None if mode == "lexical" else (queries[number][np.newaxis], [1])
        asked_s = time.perf_counter()
        chunks = await replica.search(request(mode, questions[number]), embedded, MODEL)
        assert len(chunks) == 10
        return (time.perf_counter() - asked_s) * 1000

    await search("dense", 0)
    took_s = time.perf_counter() - start_s
    assert (await replica.stats()).num_snapshots_loaded == 1, "it was built from the log"
    times: dict[Any, list[float]] = {mode: [] for mode in MODES}
    for number in range(-20, num_queries):  # the first ones warm up
        for place, mode in enumerate(MODES):  # each with another query than the one before it
            which = (number + place * num_queries // len(MODES)) % num_queries
            times[mode].append(await search(mode, which))
    stats = await replica.index_stats(COLLECTION)
    memory = psutil.Process().memory_info().rss / (num_rows * dim * 4)
    show({mode: values[20:] for mode, values in times.items()}, took_s)
    print(f"index {stats.kind if stats else ''}, resident memory ÷ raw vectors {memory:.2f}")
    replica.close()


def show(times: dict[Any, list[float]], start_s: float) -> None:
    table = Table("", "p50", "p95", "÷ dense", "goal")
    goal = f"≤ {START_GOAL_S:.0f} s: {'met' if start_s <= START_GOAL_S else 'missed'}"
    table.add_row("first answer from a snapshot", f"{start_s:.1f} s", "", "", goal)
    dense = statistics.median(times["dense"])
    for mode, values in times.items():
        ratio = statistics.median(values) / dense
        is_met = "met" if ratio <= HYBRID_GOAL else "missed"
        row = (f"{statistics.median(values):.2f} ms", f"{np.percentile(values, 95):.2f} ms")
        goal = f"≤ {HYBRID_GOAL:.0f}: {is_met}" if mode == "hybrid" else ""
        table.add_row(mode, *row, f"{ratio:.2f}", goal)
    Console(width=110).print(table)


def in_process(work: Callable[[], None]) -> None:
    """Run in a process of its own, whose memory is nobody else's."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)


def main() -> None:
    """Read the command line, fill, start and ask."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--keep", type=Path, help="state folder that stays")
    args = parser.parse_args()
    folder = args.keep or Path(tempfile.mkdtemp())
    os.environ["RAGSERVE_STATE_DIR"] = str(folder)
    os.environ.pop("RAGSERVE_DATABASE_URL", None)
    try:
        if not (folder / "snapshots").exists():
            in_process(lambda: fill(args.rows, args.dim))
        in_process(lambda: asyncio.run(ask(args.rows, args.dim, args.queries)))
    finally:
        if args.keep is None:
            with suppress(FileNotFoundError):
                shutil.rmtree(folder)


if __name__ == "__main__":
    main()
