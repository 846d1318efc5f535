"""What a search costs inside a Retriever replica, against bare FAISS over the same vectors.

    python -m tests.bench.search --documents 100000 --dim 384

Random vectors and words by Zipf's law; each round asks every row of the table the same question, so
that whatever disturbs the machine disturbs them alike.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import faiss as typed_faiss
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from deployments.config import RetrieverArgs
from deployments.retriever import Retriever
from deployments.types import (
    AllOf,
    Condition,
    Document,
    EmbeddedText,
    MetadataFilter,
    SearchRequest,
    Segment,
)

faiss: Any = typed_faiss

MODEL = "bench"
COLLECTION = "bench"
BATCH = 1000
NUM_WORDS = 20_000
WORDS_PER_TEXT = 60
RARE = 10_000
"""One document in so many matches the rare filter."""

FILTERS: dict[str, MetadataFilter | None] = {
    "": None,
    ", 1 in 10,000 match": Condition("rare", "eq", True),
    ", 1 in 100 match": Condition("number", "lt", 1),
    ", half match": AllOf((Condition("tag", "in", ("even",)), Condition("number", "gte", 0))),
}
GOALS = {"dense": 1.3, "hybrid": 2.0}


@dataclass(frozen=True)
class Data:
    """What is stored and asked."""

    vectors: NDArray[np.float32]
    texts: list[str]
    queries: NDArray[np.float32]
    questions: list[str]


def data(num_documents: int, num_queries: int, dim: int) -> Data:
    random = np.random.default_rng(1)
    weights = 1 / np.arange(1, NUM_WORDS + 1)
    weights /= weights.sum()
    words = random.choice(NUM_WORDS, (num_documents, WORDS_PER_TEXT), p=weights)
    asked = random.choice(NUM_WORDS, (num_queries, 6), p=weights)
    return Data(
        unit(random, num_documents, dim),
        [" ".join(f"w{word}" for word in row) for row in words.tolist()],
        unit(random, num_queries, dim),
        [" ".join(f"w{word}" for word in row) for row in asked.tolist()],
    )


def unit(random: np.random.Generator, count: int, dim: int) -> NDArray[np.float32]:
    vectors = random.standard_normal((count, dim), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def document(number: int, text: str) -> Document:
    metadata = {
        "rare": number % RARE == 7,
        "number": number % 100,
        "tag": "odd" if number % 2 else "even",
        "day": f"2026-{number % 12 + 1:02}-01",
    }
    return Document(id=f"d{number}", text=text, metadata=metadata)


async def fill(replica: Retriever, data: Data) -> None:
    for first in range(0, len(data.texts), BATCH):
        texts = data.texts[first : first + BATCH]
        documents = [document(first + i, text) for i, text in enumerate(texts)]
        embedded = [
            EmbeddedText((Segment(0, len(text), 0),), vector[np.newaxis])
            for text, vector in zip(texts, data.vectors[first:], strict=False)
        ]
        await replica.upsert(COLLECTION, documents, embedded, MODEL)


def bare(data: Data) -> Callable[[int], Awaitable[object]]:
    index = faiss.IndexFlatIP(data.vectors.shape[1])
    index.add(data.vectors)

    async def search(number: int) -> object:
        faiss.omp_set_num_threads(1)
        return index.search(data.queries[number : number + 1], 10)

    return search


def inside(
    replica: Retriever, data: Data, mode: Any, filter: MetadataFilter | None
) -> Callable[[int], Awaitable[object]]:
    async def search(number: int) -> object:
        question, query = data.questions[number], data.queries[number : number + 1]
        request = SearchRequest(collection=COLLECTION, query=question, mode=mode, filter=filter)
        embedded = None if mode == "lexical" else (query, [6])
        chunks = await replica.search(request, embedded, MODEL)
        if mode != "lexical":
            assert len(chunks) == min(10, num_matches(filter, len(data.texts))), len(chunks)
        return chunks

    return search


def num_matches(filter: MetadataFilter | None, total: int) -> int:
    return (
        -(-(total - 7) // RARE) if isinstance(filter, Condition) and filter.field == "rare" else 10
    )


async def measure(
    searches: dict[str, Callable[[int], Awaitable[object]]], num_queries: int
) -> dict[str, list[float]]:
    """Return each search's times in ms, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in searches}
    for number in range(num_queries):
        for name, search in searches.items():
            start_s = time.perf_counter()
            await search(number)
            times[name].append((time.perf_counter() - start_s) * 1000)
    return times


async def run(args: argparse.Namespace) -> dict[str, list[float]]:
    stored = data(args.documents, args.queries, args.dim)
    replica = Retriever(RetrieverArgs())
    start_s = time.perf_counter()
    await fill(replica, stored)
    filled_s = time.perf_counter()
    searches = {"bare FAISS": bare(stored)}
    for name, filter in FILTERS.items():
        for mode in ("dense", "lexical", "hybrid"):
            searches[mode + name] = inside(replica, stored, mode, filter)
    await searches["dense"](0)
    loaded_s = time.perf_counter()
    print(f"stored {args.documents / (filled_s - start_s):.0f} documents/s,", end=" ")
    print(f"loaded {args.documents / (loaded_s - filled_s):.0f} documents/s")
    await measure(searches, min(5, args.queries))
    return await measure(searches, args.queries)


def show(times: dict[str, list[float]], title: str) -> None:
    table = Table("search", "p50 ms", "p95 ms", "÷ bare FAISS", "÷ dense", "goal", title=title)
    median = {name: statistics.median(values) for name, values in times.items()}
    for name, values in times.items():
        mode = name.partition(",")[0]
        goal = GOALS.get(name)
        unit = "bare FAISS" if mode == "dense" else "dense"
        is_met = goal is not None and median[name] <= goal * median[unit]
        table.add_row(
            name,
            f"{median[name]:.2f}",
            f"{np.percentile(values, 95):.2f}",
            f"{median[name] / median['bare FAISS']:.2f}",
            f"{median[name] / median['dense']:.2f}",
            "" if goal is None else f"≤ {goal} × {unit}: {'met' if is_met else 'missed'}",
        )
    Console(width=120).print(table)


def main() -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--queries", type=int, default=60)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RAGSERVE_STATE_DIR"] = folder
        os.environ.pop("RAGSERVE_DATABASE_URL", None)
        times = asyncio.run(run(args))
    show(times, f"{args.documents} documents × {args.dim}, top 10")


if __name__ == "__main__":
    main()
