"""Models that come and go: what routing adds, how long a load takes, and if memory comes back.

Runs the fake profile. Requests go in turns to the configuration's generator and to a model that
was loaded at run time. Example:

    python -m tests.bench.models --requests 500 --cycles 30
"""

import argparse
import statistics
import time
from collections.abc import Callable

import httpx
import psutil
from rich.console import Console

from cluster.processes import survivors
from cluster.run_record import read_record
from cluster.state import StateFolder
from tests.stack import ROOT, Stack, running

OWN, LOADED = "fake", "loaded@1"
OPTIONS = {"fake_token_delay_s": 0.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=300, help="of each model")
    parser.add_argument("--cycles", type=int, default=5, help="of load and unload")
    args = parser.parse_args()
    console = Console()
    with running(ROOT / "configs/fake.yaml") as stack, stack.client() as client:
        load(client, "own-twin@1")
        load_s = timed(lambda: load(client, LOADED))
        console.print(f"load to ready: {load_s:.2f} s (fake engine: a replica's start)")
        for model in (OWN, LOADED, "own-twin@1"):
            ask(client, model, 20)
        found = turns(client, args.requests)
        for model, times in found.items():
            console.print(f"{model}: p50 {statistics.median(times) * 1e3:.2f} ms")
        added = statistics.median(found[LOADED]) - statistics.median(found[OWN])
        console.print(f"routing adds {added * 1e3:+.2f} ms at p50")
        cycles(stack, client, args.cycles, console)


def turns(client: httpx.Client, number: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {OWN: [], LOADED: []}
    for _ in range(number):
        for model, seen in times.items():
            seen.append(timed(lambda model=model: ask(client, model, 1)))  # type: ignore[misc]
    return times


def cycles(stack: Stack, client: httpx.Client, number: int, console: Console) -> None:
    before = memory(stack)
    for _ in range(number):
        load(client, "cycle@1")
        ask(client, "cycle@1", 1)
        body = {"model_id": "cycle@1", "wait": True}
        client.post("/v1/models/unload", json=body).raise_for_status()
    after = memory(stack)
    share = after / before - 1
    console.print(f"{number} cycles: {before >> 20} MiB before, {after >> 20} after ({share:+.1%})")


def memory(stack: Stack) -> int:
    """Return the proportional memory of every process of the installation."""
    state = StateFolder(stack.state_dir)
    assert read_record(state) is not None
    total = 0
    for process in survivors(state.installation):
        try:
            total += process.memory_full_info().pss
        except psutil.Error:  # it ended meanwhile
            continue
    return total


def load(client: httpx.Client, model: str) -> None:
    body = {"model_id": model, "engine": "fake", "options": OPTIONS, "wait": True}
    client.post("/v1/models/load", json=body).raise_for_status()


def ask(client: httpx.Client, model: str, number: int) -> None:
    messages = [{"role": "user", "content": "hi"}]
    body = {"model": model, "messages": messages, "max_tokens": 1}
    for _ in range(number):
        client.post("/v1/chat/completions", json=body).raise_for_status()


def timed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
