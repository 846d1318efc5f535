"""How fast the generation engine decodes, as a ratio to a plain loop over the same model.

Both get the same prompts and the same number of greedy tokens, in turns, in one run; the table
shows medians. Example:

    python -m tests.bench.engine --rounds 5 --tokens 128 --streams 1 16
"""

import argparse
import asyncio
import random
import statistics
import time
from importlib.util import find_spec

from rich.console import Console
from rich.table import Table

from deployments.config import GeneratorArgs
from deployments.engines.generation.base import EngineRequest, GenerationEngine
from deployments.engines.generation.registry import create_engine
from deployments.types import Finished, SamplingParams
from tests.bench.engine_plain import PlainLoop


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


def measure_vllm(source: str, prompts: list[list[int]], num_tokens: int) -> float:
    """Return tokens per second of vLLM on the same prompts."""
    from vllm import LLM
    from vllm import SamplingParams as VllmParams

    model = LLM(source, enable_prefix_caching=False)
    params = VllmParams(max_tokens=num_tokens, temperature=0.0, ignore_eos=True)
    inputs = [{"prompt_token_ids": prompt} for prompt in prompts]
    model.generate(inputs, params)
    started = time.perf_counter()
    model.generate(inputs, params)
    return len(prompts) * num_tokens / (time.perf_counter() - started)


async def run(options: argparse.Namespace) -> Table:
    """Measure in turns and return the table."""
    args = GeneratorArgs(source=options.source, precision=options.precision)
    plain = PlainLoop(args)
    engine = create_engine(args)
    await engine.start()
    table = Table(title=f"greedy tokens per second, median of {options.rounds}")
    for name in ("streams", "plain loop", "engine", "engine / plain", "worst ... best"):
        table.add_column(name, justify="right")
    for num in options.streams:
        prompts = prompts_of(num, options.prompt)
        await measure(engine, prompts, 4)
        plain.measure(prompts, 4)
        pairs = []
        for _ in range(options.rounds):
            theirs = plain.measure(prompts, options.tokens)
            pairs.append((theirs, await measure(engine, prompts, options.tokens)))
        ratios = sorted(ours / theirs for theirs, ours in pairs)
        table.add_row(
            str(num),
            f"{statistics.median(theirs for theirs, _ in pairs):.1f}",
            f"{statistics.median(ours for _, ours in pairs):.1f}",
            f"{statistics.median(ratios):.2f}",
            f"{ratios[0]:.2f} ... {ratios[-1]:.2f}",
        )
        if find_spec("vllm"):
            rate = measure_vllm(options.source, prompts, options.tokens)
            table.add_row(f"{num} (vllm)", "", f"{rate:.1f}", "", "")
    plain.stop()
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
    Console().print(asyncio.run(run(parser.parse_args())))


if __name__ == "__main__":
    main()
