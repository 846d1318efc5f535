"""nDCG@10 and recall@10 of dense, lexical and hybrid search over labelled sets of our own.

Runs the default application's Embedder and Retriever in process, so every figure is the product's.
With `--grid` it fuses the same rankings by other constants and weights: half 1 of the questions is
there to choose by, half 2 to report.

    pip install --target .venv/quality -c constraints.txt --group quality
    PYTHONPATH=.venv/quality python -m tests.bench.quality --grid

The figures are by `ranx`, which is kept out of the environment: with it comes pandas, which pyarrow
imports wherever it finds it, and every Retriever of the tests would hold 54 MiB more.
"""

import argparse
import asyncio
import itertools
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import ranx
from rich.console import Console
from rich.table import Table

from deployments.embedder import Embedder
from deployments.stores.hits import Hit, fuse
from deployments.types import ScoredChunk, SearchMode, SearchRequest
from graphs import fusion
from graphs.reranking import num_candidates
from tests.bench.facts import default_args
from tests.bench.labelled.facts import facts
from tests.bench.labelled.questions import (
    LabelledSet,
    Question,
    chinese,
    documentation,
    halves,
    right_chunks,
)

MODES: tuple[SearchMode, ...] = ("dense", "lexical", "hybrid")
SHOWN = (*MODES, "reranked")
"""Hybrid, and hybrid with `rerank` and no cross-encoder."""
METRICS = ("ndcg@10", "recall@10")
NUM_RERANKED = num_candidates(10)
CANDIDATES = 50
"""Results of each ranking that the grid fuses, as many as a Retriever does by default."""

Ranking = list[str]


@dataclass
class Judged:
    """A question with its right chunks and the ids that each mode found, best first."""

    question: Question
    right: set[str]
    found: dict[str, Ranking] = field(default_factory=dict)
    cosines: dict[str, float] = field(default_factory=dict)


class Searched:
    """A labelled set, stored and searched."""

    def __init__(self) -> None:
        # Imported late: it reads its address from the environment.
        from deployments.retriever import Retriever

        args = default_args()
        self._embedder, self._retriever = Embedder(args.embedder), Retriever(args.retriever)

    async def judged(self, one: LabelledSet, depth: int) -> list[Judged]:
        """Store a set and ask all its questions in every mode."""
        one.check()
        texts = [document.text for document in one.documents]
        embedded = await self._embedder.embed_documents(texts)
        await self._retriever.upsert(one.name, one.documents, embedded, "minilm")
        spans = {
            document.id: [(each.start, each.end) for each in cut.segments]
            for document, cut in zip(one.documents, embedded, strict=True)
        }
        whole = {document.id: document.text for document in one.documents}
        return [
            await self._ask(one.name, question, whole[question.document_id], spans, depth)
            for question in one.questions
        ]

    async def _ask(
        self,
        collection: str,
        question: Question,
        text: str,
        spans: dict[str, list[tuple[int, int]]],
        depth: int,
    ) -> Judged:
        starts = right_chunks(question, text, spans[question.document_id])
        judged = Judged(question, {f"{question.document_id}:{start}" for start in starts})
        query = await self._embedder.embed([question.text])
        for mode in MODES:
            request = SearchRequest(
                collection=collection,
                query=question.text,
                mode=mode,
                top_k=NUM_RERANKED if mode == "hybrid" else depth,
            )
            chunks = await self._retriever.search(request, query, "minilm")
            judged.found[mode] = [name(chunk) for chunk in chunks]
            judged.cosines |= {name(chunk): chunk.cosine or 0.0 for chunk in chunks}
        judged.found["reranked"] = reranked(question.text, chunks)
        return judged

    async def stop(self) -> None:
        await self._embedder.stop()


def reranked(query: str, chunks: Sequence[ScoredChunk]) -> Ranking:
    """Return the chunks as late fusion orders them, which is what `rerank` does by default."""
    texts = [chunk.text for chunk in chunks]
    fused_scores = fusion.fused(query, texts, [chunk.cosine or 0.0 for chunk in chunks])
    order = sorted(range(len(chunks)), key=lambda i: -fused_scores[i])
    return [name(chunks[i]) for i in order]


def name(chunk: ScoredChunk) -> str:
    return f"{chunk.document_id}:{chunk.start}"


def scores(judged: Sequence[Judged], ranking: Callable[[Judged], Ranking]) -> dict[str, float]:
    """Return each metric's mean over some questions."""
    keys = [f"q{number}" for number in range(len(judged))]
    right = {key: dict.fromkeys(one.right, 1) for key, one in zip(keys, judged, strict=True)}
    run: dict[str, dict[str, float]] = {}
    for key, one in zip(keys, judged, strict=True):
        found = ranking(one)[:10] or ["nothing"]
        run[key] = {chunk: 1.0 / rank for rank, chunk in enumerate(found, start=1)}
    return dict(ranx.evaluate(ranx.Qrels(right), ranx.Run(run), list(METRICS)))


def fused(one: Judged, k: int, weights: tuple[float, float]) -> Ranking:
    """Return what `hits.fuse` makes of the dense and the lexical ranking."""
    names = sorted({*one.found["dense"], *one.found["lexical"]}, key=_log_order)
    numbers = {each: number for number, each in enumerate(names)}
    rankings = [
        [Hit(numbers[each], 0.0, one.cosines[each]) for each in one.found[mode][:CANDIDATES]]
        for mode in ("dense", "lexical")
    ]
    return [names[hit.number] for hit in fuse(rankings, k, weights)]


def _log_order(chunk: str) -> tuple[str, int]:
    document, _, start = chunk.rpartition(":")
    return document, int(start)


def table(title: str, judged: Sequence[Judged]) -> Table:
    """Return a row for each slice, and one for all."""
    shown = Table(
        "slice", "questions", *(f"{m} {one}" for m in METRICS for one in SHOWN), title=title
    )
    slices: dict[str, list[Judged]] = {}
    for one in judged:
        slices.setdefault(one.question.slice, []).append(one)
    slices["all"] = list(judged)
    for label, some in slices.items():
        by_mode = {mode: scores(some, lambda one, m=mode: one.found[m]) for mode in SHOWN}
        cells = [f"{by_mode[mode][metric]:.3f}" for metric in METRICS for mode in SHOWN]
        shown.add_row(label, str(len(some)), *cells)
    return shown


def parted(judged: Sequence[Judged]) -> tuple[list[Judged], list[Judged]]:
    """Return the two halves: to choose constants by, and to report."""
    first = set(halves(one.question for one in judged)[0])
    return [one for one in judged if one.question in first], [
        one for one in judged if one.question not in first
    ]


def grid(judged: Sequence[Judged]) -> Table:
    """Return the fused rankings' nDCG@10 on each half, and by slice on the first."""
    first, second = parted(judged)
    slices: dict[str, list[Judged]] = {}
    for one in first:
        slices.setdefault(one.question.slice, []).append(one)
    shown = Table("k", "weights", "half 1", "half 2", *slices, title="nDCG@10 of fusion")
    weights = ((1.0, 1.0), (1.0, 0.7), (0.7, 1.0))
    for k, weight in itertools.product((1, 2, 3, 5, 10, 20, 60), weights):
        cells = [
            scores(some, partial(fused, k=k, weights=weight))["ndcg@10"]
            for some in (first, second, *slices.values())
        ]
        shown.add_row(str(k), "{}:{}".format(*weight), *(f"{cell:.3f}" for cell in cells))
    return shown


async def run(is_grid: bool) -> list[Table]:
    """Search every set and return the tables."""
    searched = Searched()
    english: list[Judged] = []
    for one in (documentation(), facts()):
        english += await searched.judged(one, CANDIDATES if is_grid else 10)
    foreign = await searched.judged(chinese(), CANDIDATES if is_grid else 10)
    await searched.stop()
    tables = [table("English", english)]
    tables += [table(f"English, half {n}", half) for n, half in enumerate(parted(english), start=1)]
    tables.append(table("Chinese, which the model has not learnt", foreign))
    if is_grid:
        tables.append(grid(english))
    return tables


def main() -> None:
    """Read the command line and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--grid", action="store_true", help="try other constants of fusion")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RAGSERVE_STATE_DIR"] = folder
        os.environ.pop("RAGSERVE_DATABASE_URL", None)
        tables = asyncio.run(run(options.grid))
    for one in tables:
        Console(width=160).print(one)


if __name__ == "__main__":
    main()
