"""What an installation holds in memory, idle, and the default one after many embedding calls.

Examples:

    python -m tests.bench.memory --calls 10000
    python -m tests.bench.memory --calls 0 --config configs/edge.yaml
"""

import argparse
import random
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from tests.bench.load import Client, run
from tests.stack import ROOT, Stack, running

CONFIG = ROOT / "serve_config.yaml"
TARGET_MIB = 4096
SETTLE_S = 15
AT_ONCE = 8
NUM_STEPS = 10
LONG_EVERY = 50
LARGEST = 14
WATCHED = ("Embedder", "Ingress")
EMBEDDING_MODEL = "all-minilm-l6-v2"
WORDS = (
    "the and of to in for is on that by this with from river engine answer cluster question "
    "passage memory winter bakery museum copper harbour insect letter signal lighthouse"
)


@dataclass(frozen=True)
class Memory:
    """Resident memory of one process in MiB; `pss` counts a page shared by n processes 1/n."""

    name: str
    pss: float
    rss: float


def memory_of(process: psutil.Process) -> Memory | None:
    """Return what a process holds, or None when it has gone."""
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
        command = process.cmdline()
    except (OSError, psutil.Error):
        return None
    sizes = {key: int(rest.split()[0]) for key, rest in (line.split(":", 1) for line in lines)}
    return Memory(name_of(command), sizes["Pss"] / 1024, sizes["Rss"] / 1024)


def name_of(command: list[str]) -> str:
    """Return a short name: the deployment of a replica, else the program."""
    title = " ".join(command)
    if title.startswith("ray::ServeReplica:"):
        return title.split(":")[4].split()[0]
    for name in ("haproxy", "raylet", "gcs_server", "dashboard", "cluster.cli", "runtime_env"):
        if name in title.split(" --")[0].lower():
            return name
    return title.split()[0].removeprefix("ray::").rpartition("/")[2].partition(".")[0]


def memory(stack: Stack) -> list[Memory]:
    """Return what every process of the installation holds, the largest first.

    They carry its state folder in their environment; some of Ray's helpers rewrite theirs and are
    found as descendants.
    """
    roots = [process for process in psutil.process_iter() if _belongs(process, stack)]
    found = {process.pid: process for process in roots}
    for root in roots:
        try:
            found |= {child.pid: child for child in root.children(recursive=True)}
        except psutil.Error:
            continue
    held = [one for process in found.values() if (one := memory_of(process))]
    return sorted(held, key=lambda one: -one.pss)


def _belongs(process: psutil.Process, stack: Stack) -> bool:
    try:
        return process.environ().get("RAGSERVE_STATE_DIR") == str(stack.state_dir)
    except psutil.Error:
        return False


def watched(stack: Stack) -> list[float]:
    """Return the resident memory of the watched replicas, summed by deployment, in MiB."""
    held = memory(stack)
    return [sum(one.rss for one in held if one.name == name) for name in WATCHED]


def texts(count: int) -> list[str]:
    """Return different texts: queries of 1 to 64 words, and every 50th a text beyond any segment.

    Long ones only would take the embedder a quarter of an hour and show nothing more.
    """
    chance = random.Random(0)
    sizes = [400 if n % LONG_EVERY == 0 else round(64 ** chance.random()) for n in range(count)]
    words = WORDS.split()
    return [f"call {n} " + " ".join(chance.choices(words, k=k)) for n, k in enumerate(sizes)]


def idle_table(held: list[Memory]) -> Table:
    """Return what the idle installation holds, the largest processes on their own."""
    table = Table("process", "PSS MiB", "RSS MiB", title="idle")
    for one in held[:LARGEST]:
        table.add_row(one.name, f"{one.pss:.0f}", f"{one.rss:.0f}")
    rest = held[LARGEST:]
    rows = {f"{len(rest)} others": rest, f"all, target {TARGET_MIB}": held}
    for name, some in rows.items():
        sums = (sum(one.pss for one in some), sum(one.rss for one in some))
        table.add_row(name, *(f"{value:.0f}" for value in sums))
    return table


async def calls_table(stack: Stack, num_calls: int) -> Table:
    """Call for embeddings and return how the replicas grew.

    The first fifth fills the allocators: buffers of every batch shape, one heap per thread. What
    comes after it must not grow.
    """
    client = Client(stack.url, stack.key)
    table = Table("calls", *(f"{name} RSS MiB" for name in WATCHED), "calls/s")
    series = [watched(stack)]
    table.add_row("0", *(f"{value:.1f}" for value in series[0]), "")
    requests = [
        client.request("/v1/embeddings", {"model": EMBEDDING_MODEL, "input": text})
        for text in texts(num_calls)
    ]
    step = max(num_calls // NUM_STEPS, 1)
    for at in range(0, num_calls, step):
        rate = await client.saturate(requests[at : at + step], AT_ONCE)
        series.append(watched(stack))
        cells = (f"{value:.1f}" for value in series[-1])
        table.add_row(str(at + step), *cells, f"{rate:.0f}")
        print(f"{at + step} of {num_calls} calls, {rate:.0f}/s", file=sys.stderr, flush=True)
    client.close()
    warm = series[NUM_STEPS // 5 :]
    slopes = [slope([values[n] for values in warm]) * 1000 / step for n in range(len(WATCHED))]
    table.add_row("MiB per 1000 calls after the first fifth", *(f"{x:+.2f}" for x in slopes), "")
    return table


def slope(values: list[float]) -> float:
    """Return by how much the values grow per step, by least squares."""
    return statistics.linear_regression(range(len(values)), values).slope


def main() -> None:
    """Read the command line and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=10_000, help="embedding calls; 0 for none")
    parser.add_argument("--config", type=Path, default=CONFIG, help="what runs")
    options = parser.parse_args()
    with running(options.config.resolve()) as stack:
        time.sleep(SETTLE_S)
        Console(width=100).print(idle_table(memory(stack)))
        if options.calls:
            Console(width=100).print(run(calls_table(stack, options.calls)))


if __name__ == "__main__":
    main()
