"""What many small collections cost one Retriever replica, against a few of the same size.

    python -m tests.bench.many_collections --collections 2000

Each has twenty chunks. The cost of a search should not grow with how many others there are.
"""

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console
from rich.progress import track
from rich.table import Table

from deployments.config import RetrieverArgs
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.migrations import migrate
from deployments.stores.search import Searcher
from deployments.types import Document, EmbeddedText, SearchRequest, Segment

MODEL, DIM, NUM_DOCUMENTS = "bench", 384, 20
FEW = 10
NUM_SEARCHES = 1000


def fill(database: Database, num_collections: int, rng: np.random.Generator) -> None:
    """Store the collections."""
    store = DocumentStore(database)
    for number in track(range(num_collections), "storing", console=Console(stderr=True)):
        documents = [
            Document(id=f"d{i}", text=f"text {i} of {number}") for i in range(NUM_DOCUMENTS)
        ]
        embedded = [
            EmbeddedText((Segment(0, len(one.text), 4),), vectors(rng, 1)) for one in documents
        ]
        store.upsert(f"c{number}", MODEL, documents, embedded)


def vectors(
    rng: np.random.Generator, count: int
) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    """Return float32[count, DIM], L2-normalised."""
    found = rng.standard_normal((count, DIM), dtype=np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def search_ms(searcher: Searcher, names: list[str], rng: np.random.Generator) -> list[float]:
    """Return how long a search of each collection takes."""
    durations = []
    for name in names:
        query = vectors(rng, 1)[0]
        request = SearchRequest(collection=name, query="text 3", top_k=10)
        started = time.perf_counter()
        assert len(searcher.search(request, query, MODEL)) == 10
        durations.append((time.perf_counter() - started) * 1000)
    return durations


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collections", type=int, default=2000)
    number = parser.parse_args().collections
    rng = np.random.default_rng(2026)
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'bench.db'}"
        migrate(url)
        database = Database(url)
        fill(database, number, rng)
        searcher = Searcher(database, RetrieverArgs())
        before = psutil.Process().memory_info().rss
        names = [f"c{i}" for i in range(number)]
        first = search_ms(searcher, names, rng)
        held = psutil.Process().memory_info().rss - before
        pick = random.Random(2026)
        many = search_ms(searcher, pick.choices(names, k=NUM_SEARCHES), rng)
        few = search_ms(searcher, pick.choices(names[:FEW], k=NUM_SEARCHES), rng)
        table = Table("what", "measured")
        table.add_row(
            f"first search, p50 of {number} collections", f"{statistics.median(first):.1f} ms"
        )
        table.add_row("memory per collection", f"{held / number / 1024:.0f} KiB")
        table.add_row(f"search among {number}, p50", f"{statistics.median(many):.2f} ms")
        table.add_row(f"search among {FEW}, p50", f"{statistics.median(few):.2f} ms")
        ratio = statistics.median(many) / statistics.median(few)
        table.add_row("ratio", f"{ratio:.2f}")
        Console().print(table)
        assert len(searcher.followers.all()) == number
        database.close()


if __name__ == "__main__":
    main()
