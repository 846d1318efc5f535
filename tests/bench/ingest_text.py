"""How fast text is ingested over HTTP, against the embedder alone on the same documents.

`POST /v1/data/index` through the edge, the ingress, the embedder and into SQLite, beside
`Embedder.embed_documents` in a process of its own with the same settings: the same documents in the
same batches, as many at a time, in turns. Every round has documents of its own, because unchanged
ones cost nothing. Example:

    python -m tests.bench.ingest_text --rounds 5 --documents 96
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from deployments.config import EmbedderArgs
from deployments.embedder import Embedder
from tests.bench.embedding import texts
from tests.bench.load import Client, run
from tests.stack import ROOT, Stack, running

CONFIG = ROOT / "serve_config.yaml"
GOAL = 0.9
WARM_UP = -1  # the number of a round that does not count


def embedder_args() -> EmbedderArgs:
    config = yaml.safe_load(CONFIG.read_text("utf-8"))
    return EmbedderArgs(**config["applications"][0]["args"]["embedder"])


def batches(number: int, documents: int, per_call: int) -> list[list[str]]:
    """Return one round's documents: ten sentences of made-up English, some 900 tokens, each."""
    parts = iter(texts(10 * documents, seed=1000 + number))
    made = [". ".join(next(parts) for _ in range(10)) for _ in range(documents)]
    return [made[first : first + per_call] for first in range(0, documents, per_call)]


async def at_once(calls: Sequence[Any], concurrency: int) -> float:
    """Return the seconds that all calls take, so many at a time."""
    room = asyncio.Semaphore(concurrency)

    async def one(call: Any) -> None:
        async with room:
            await call()

    start_s = time.perf_counter()
    await asyncio.gather(*map(one, calls))
    return time.perf_counter() - start_s


async def alone(options: argparse.Namespace) -> None:
    """Serve rounds: a number in, the seconds out."""
    embedder = Embedder(embedder_args())
    await embedder.start()
    print(flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        work = batches(int(line), options.documents, options.per_call)
        calls = [lambda part=part: embedder.embed_documents(part) for part in work]
        print(await at_once(calls, options.concurrency), flush=True)
    await embedder.stop()


async def ingested(stack: Stack, number: int, options: argparse.Namespace) -> float:
    """Return the seconds in which one round's documents became searchable."""
    bodies = [
        {
            "collection": "bench",
            "documents": [
                {"id": f"r{number}-{call}-{place}", "text": text} for place, text in enumerate(part)
            ],
        }
        for call, part in enumerate(batches(number, options.documents, options.per_call))
    ]
    client = Client(stack.url, stack.key)
    try:
        requests = [client.request("/v1/data/index", body) for body in bodies]
        return len(requests) / await client.saturate(requests, options.concurrency)
    finally:
        client.close()


def compare(stack: Stack, options: argparse.Namespace) -> None:
    command = [sys.executable, "-m", "tests.bench.ingest_text", "--worker", *sys.argv[1:]]
    pipe = subprocess.PIPE
    worker = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdout.readline()
    rows = []
    try:
        for number in range(WARM_UP, options.rounds):
            worker.stdin.write(f"{number}\n")
            worker.stdin.flush()
            embedded_s = float(worker.stdout.readline())
            stored_s = run(ingested(stack, number, options))
            rows.append((options.documents / stored_s, options.documents / embedded_s))
    finally:
        worker.communicate(timeout=60)
    ratios = sorted(ours / limit for ours, limit in rows[1:])
    ratio = statistics.median(ratios)
    table = Table("", "documents/s, median", "÷ embedder alone", "goal")
    verdict = f"≥ {GOAL}: {'met' if ratio >= GOAL else 'missed'}"
    spread = f"{ratio:.2f} ({ratios[0]:.2f} ... {ratios[-1]:.2f})"
    ours, limit = (statistics.median(column) for column in zip(*rows[1:], strict=True))
    table.add_row("ingest over HTTP", f"{ours:.2f}", spread, verdict)
    table.add_row("embedder alone", f"{limit:.2f}", "", "")
    Console(width=100).print(table)


def main() -> None:
    """Read the command line, start the installation and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--documents", type=int, default=64, help="of a round")
    parser.add_argument("--per-call", type=int, default=8)
    parser.add_argument("--concurrency", type=int, default=4, help="calls in flight")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        asyncio.run(alone(options))
        return
    with running(CONFIG) as stack:
        compare(stack, options)


if __name__ == "__main__":
    main()
