"""Models that come and go: what routing adds, how long a load takes, and if memory comes back.

Runs the fake profile. Requests go in turns to the configuration's generator and to a model that
was loaded at run time, both fake. A real model is then loaded and asked for one token, in turns
with a bare process that reads the same files with transformers and computes one token, and with a
load of a fake model, which is the start of a replica: the goal is for the first to take at most 1.3
times as long as the two others together. Example:

    python -m tests.bench.models --requests 500 --cycles 30
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
import psutil
from rich.console import Console

from cluster.processes import survivors
from cluster.run_record import read_record
from cluster.state import StateFolder
from deployments.engines.weights import locate
from tests.stack import ROOT, Stack, running

OWN, LOADED = "fake", "loaded@1"
LOAD_GOAL = 1.3
ROUTING_GOAL_MS = 1.0

BARE = """
import sys, torch, transformers
folder, file, num_threads = sys.argv[1:]
torch.set_num_threads(int(num_threads))
files = {"gguf_file": file} if file else {}
tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **files)
model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, **files)
prompt = tokenizer.apply_chat_template(
    [{"role": "user", "content": "hi"}],
    add_generation_prompt=True,
    return_tensors="pt",
    return_dict=True,
)
model.generate(**prompt, max_new_tokens=1)
"""
"""What a program without a server does until its first token."""

REAL = {"source": "embedded:smollm2-135m-instruct", "precision": "bf16"}
FAKE = {"engine": "fake", "options": {"fake_token_delay_s": 0.0}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=300, help="of each model")
    parser.add_argument("--cycles", type=int, default=5, help="of a real model: load, unload")
    parser.add_argument("--loads", type=int, default=3, help="of a real model")
    args = parser.parse_args()
    console = Console()
    with running(ROOT / "configs/fake.yaml") as stack, stack.client() as client:
        load(client, "own-twin@1")
        load(client, LOADED)
        for model in (OWN, LOADED, "own-twin@1"):
            ask(client, model, 20)
        found = turns(client, args.requests)
        for model, times in found.items():
            console.print(f"{model}: p50 {statistics.median(times) * 1e3:.2f} ms")
        added = statistics.median(found[LOADED]) - statistics.median(found[OWN])
        is_met = "met" if added * 1e3 <= ROUTING_GOAL_MS else "missed"
        console.print(
            f"routing adds {added * 1e3:+.2f} ms at p50 (≤ {ROUTING_GOAL_MS:g}: {is_met})"
        )
        loads(client, args.loads, console)
        cycles(stack, client, args.cycles, console)


def turns(client: httpx.Client, number: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {OWN: [], LOADED: []}
    for _ in range(number):
        for model, seen in times.items():
            seen.append(timed(lambda model=model: ask(client, model, 1)))  # type: ignore[misc]
    return times


def loads(client: httpx.Client, number: int, console: Console) -> None:
    """Load in turns, and print the medians and their ratio."""
    weights = locate(REAL["source"])
    bare = [sys.executable, "-c", BARE, str(weights.folder), weights.gguf_file or ""]
    bare.append(str(os.cpu_count()))
    times: dict[str, list[float]] = {"real": [], "fake": [], "bare": []}
    for turn in range(number):
        for name, options in (("real", REAL), ("fake", FAKE)):
            model = f"{name}@{turn}"
            times[name].append(timed(partial(first_token, client, model, options)))
            unload(client, model)
        times["bare"].append(timed(partial(subprocess.run, bare, check=True)))
    load_s, start_s, bare_s = (statistics.median(seconds) for seconds in times.values())
    ratio = load_s / (bare_s + start_s)
    console.print(
        f"load to first token {load_s:.2f} s; transformers in a bare process {bare_s:.2f} s, a "
        f"replica's start {start_s:.2f} s: ratio {ratio:.2f} "
        f"(≤ {LOAD_GOAL}: {'met' if ratio <= LOAD_GOAL else 'missed'})"
    )


def first_token(client: httpx.Client, model: str, options: dict[str, Any]) -> None:
    load(client, model, options)
    ask(client, model, 1)


def cycles(stack: Stack, client: httpx.Client, number: int, console: Console) -> None:
    before = memory(stack)
    for _ in range(number):
        load(client, "cycle@1", REAL)
        ask(client, "cycle@1", 1)
        unload(client, "cycle@1")
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


def load(client: httpx.Client, model: str, options: dict[str, Any] = FAKE) -> None:
    body = {"model_id": model, "wait": True, **options}
    client.post("/v1/models/load", json=body).raise_for_status()


def unload(client: httpx.Client, model: str) -> None:
    body = {"model_id": model, "wait": True}
    client.post("/v1/models/unload", json=body).raise_for_status()


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
