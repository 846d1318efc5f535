"""How fast the generation engine decodes, as a ratio to a plain loop over the same model.

All get the same prompts and the same number of greedy tokens, in turns, in one run; the table
shows medians, and of the ratios the worst and the best too. `engine_vllm.py` says how to make an
environment with vLLM. The DeepSpeed engine is measured with as many ranks as `--ranks` says;
SmolLM2 can be split over 3. Example:

    python -m tests.bench.engine --rounds 5 --streams 1 16 --vllm-python VENV/bin/python
    python -m tests.bench.engine --rounds 1 --streams 1 8 --tokens 32 --ranks 1 3
"""

import argparse
import asyncio
import os
import random
import statistics
import time
from pathlib import Path
from typing import IO, Any, Protocol

from rich.console import Console
from rich.table import Table

from deployments.config import GeneratorArgs
from deployments.engines.generation.base import EngineRequest, GenerationEngine
from deployments.engines.generation.registry import create_engine
from deployments.types import Finished, SamplingParams
from tests.bench.engine_deepspeed import DeepSpeedPeer
from tests.bench.engine_plain import PlainLoop
from tests.bench.engine_vllm import VllmPeer

WARM_UP_TOKENS = 4


class Peer(Protocol):
    """What the engine is compared with, in a process of its own."""

    def measure(self, prompts: list[list[int]], num_tokens: int) -> float:
        """Return tokens per second over all streams, prompts included in the time."""
        ...

    def stop(self) -> None:
        """End the process."""
        ...


def prompts_of(num: int, length: int) -> list[list[int]]:
    """Return prompts of one length that share no prefix: nothing is gained by a cache."""
    chance = random.Random(0)
    return [[chance.randrange(1000, 40_000) for _ in range(length)] for _ in range(num)]


async def measure(engine: GenerationEngine, prompts: list[list[int]], num_tokens: int) -> float:
    """Return tokens per second over all streams, prompts included in the time."""
    sampling = SamplingParams(max_tokens=num_tokens, temperature=0.0)

    async def one(index: int, prompt: list[int]) -> int:
        async for event in engine.generate(EngineRequest(f"b{index}", tuple(prompt), sampling)):
            if isinstance(event, Finished):
                return event.completion_tokens
        return 0

    started = time.perf_counter()
    counts = await asyncio.gather(*(one(i, prompt) for i, prompt in enumerate(prompts)))
    return sum(counts) / (time.perf_counter() - started)


async def rates_of(
    engine: GenerationEngine, peers: dict[str, Peer], prompts: list[list[int]], options: Any
) -> dict[str, list[float]]:
    """Return each one's tokens per second, round by round, after a warm-up."""
    rates: dict[str, list[float]] = {name: [] for name in [*peers, "engine"]}
    await measure(engine, prompts, WARM_UP_TOKENS)
    for peer in peers.values():
        peer.measure(prompts, WARM_UP_TOKENS)
    for _ in range(options.rounds):
        for name, peer in peers.items():
            rates[name].append(peer.measure(prompts, options.tokens))
        rates["engine"].append(await measure(engine, prompts, options.tokens))
    return rates


def ratio(ours: list[float], theirs: list[float]) -> str:
    """Return the median of the ratios of each round, with the worst and the best."""
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} ... {ratios[-1]:.2f})"


async def run(options: argparse.Namespace, log: IO[bytes]) -> Table:
    """Measure in turns and return the table."""
    args = GeneratorArgs(source=options.source, precision=options.precision)
    peers: dict[str, Peer] = {"plain loop": PlainLoop(args)}
    if options.vllm_python:
        peers["vLLM"] = VllmPeer(options.vllm_python, args, log)
    for num_ranks in options.ranks:
        peers[f"DeepSpeed x {num_ranks}"] = DeepSpeedPeer(args, num_ranks, measure)
    engine = create_engine(args)
    await engine.start()
    table = Table(title=f"greedy tokens per second, median of {options.rounds}")
    for name in ("streams", "engine", *peers, *(f"engine / {name}" for name in peers)):
        table.add_column(name, justify="right")
    for num in options.streams:
        rates = await rates_of(engine, peers, prompts_of(num, options.prompt), options)
        medians = (f"{statistics.median(rates[name]):.1f}" for name in ("engine", *peers))
        ratios = (ratio(rates["engine"], rates[name]) for name in peers)
        table.add_row(str(num), *medians, *ratios)
    for peer in peers.values():
        peer.stop()
    await engine.stop()
    return table


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", default="embedded:smollm2-135m-instruct")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16", "fp16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=96, help="new tokens per stream")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of each prompt")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16])
    parser.add_argument(
        "--ranks", type=int, nargs="*", default=[], help="ranks of DeepSpeed to measure"
    )
    parser.add_argument("--vllm-python", help="an interpreter with vLLM, to measure it too")
    parser.add_argument(
        "--vllm-log", type=Path, default=os.devnull, help="file for what vLLM prints"
    )
    options = parser.parse_args()
    with options.vllm_log.open("wb") as log:
        Console(width=160).print(asyncio.run(run(options, log)))


if __name__ == "__main__":
    main()
