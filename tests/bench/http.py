"""What HTTP costs: tokens per second and time to the first token, beside the bare engine.

The same prompts and the same greedy tokens go through the whole path (edge, Serve, ingress, graph,
handle, Generator) and straight into the same engine in this process, in turns; the other side is
idle. Example:

    python -m tests.bench.http --rounds 5 --tokens 96 --streams 1 16
"""

import argparse
import asyncio
import random
import statistics
import sys
import time
from dataclasses import dataclass

import yaml
from rich.console import Console
from rich.table import Table

from cluster.serve_mode import ServeMode
from deployments.config import GeneratorArgs
from deployments.engines.generation.base import EngineRequest, GenerationEngine
from deployments.engines.generation.registry import create_engine
from deployments.types import Delta, Finished, Message, SamplingParams
from tests.bench.load import Client, Streamed, median_ms, percentile, run
from tests.stack import ROOT, running

CONFIG = ROOT / "serve_config.yaml"
THINGS = ["river", "castle", "market", "forest", "harbour", "mountain", "garden", "library"]
PEOPLE = ["baker", "sailor", "doctor", "farmer", "teacher", "painter", "soldier", "pilot"]


@dataclass
class Round:
    """What one round of one side brought."""

    answers: list[Streamed]
    seconds: float

    @property
    def tokens_per_s(self) -> float:
        return sum(one.completion_tokens for one in self.answers) / self.seconds


class Side:
    """Both ways to the same model."""

    def __init__(self, engine: GenerationEngine, client: Client, model: str) -> None:
        self._engine = engine
        self._client = client
        self._model = model

    async def through_http(self, prompts: list[str], num_tokens: int) -> Round:
        body = {"model": self._model, "max_tokens": num_tokens, "temperature": 0, "stream": True}
        requests = [
            self._client.request(
                "/v1/chat/completions", {**body, "messages": [{"role": "user", "content": prompt}]}
            )
            for prompt in prompts
        ]
        replies, seconds = await self._client.at_once(requests)
        return Round([Streamed.of(reply) for reply in replies], seconds)

    async def in_process(self, prompts: list[str], num_tokens: int) -> Round:
        started = time.perf_counter()
        answers = await asyncio.gather(*(self._one(prompt, num_tokens) for prompt in prompts))
        return Round(answers, time.perf_counter() - started)

    async def _one(self, prompt: str, num_tokens: int) -> Streamed:
        sampling = SamplingParams(max_tokens=num_tokens, temperature=0.0)
        started = time.perf_counter()
        token_ids = tuple(self._engine.encode_chat((Message("user", prompt),)))
        answer = Streamed([], 0)
        async for event in self._engine.generate(EngineRequest(prompt, token_ids, sampling)):
            if isinstance(event, Delta) and event.text:
                answer.arrivals_s.append(time.perf_counter() - started)
            elif isinstance(event, Finished):
                answer.completion_tokens = event.completion_tokens
        return answer


def prompts_of(count: int, chance: random.Random) -> list[str]:
    """Return different prompts whose greedy answers are long."""
    return [
        f"Write a very long story about a {chance.choice(PEOPLE)} and a {chance.choice(THINGS)}, "
        f"set in the year {chance.randrange(1000, 2999)}, with many details."
        for _ in range(count)
    ]


def add_row(table: Table, *cells: str) -> None:
    """Add a row and show it at once: the whole takes minutes."""
    table.add_row(*cells)
    print("\t".join(cells), file=sys.stderr, flush=True)


async def measure(side: Side, num: int, options: argparse.Namespace, table: Table) -> None:
    """Measure one number of streams and add its rows."""
    chance = random.Random(num)
    await side.through_http(prompts_of(num, chance), 8)
    await side.in_process(prompts_of(num, chance), 8)
    ours, theirs = await rounds(side, num, options.rounds, options.tokens, chance)
    pairs = zip(ours, theirs, strict=True)
    ratios = sorted(http.tokens_per_s / bare.tokens_per_s for http, bare in pairs)
    spread = f"{ratios[0]:.3f} ... {ratios[-1]:.3f}"
    add_row(
        table,
        str(num),
        "tokens/s",
        f"{statistics.median(one.tokens_per_s for one in ours):.1f}",
        f"{statistics.median(one.tokens_per_s for one in theirs):.1f}",
        f"{statistics.median(ratios):.3f} (x)",
        spread,
    )
    add_gaps(table, num, ours, theirs)
    ours, theirs = await rounds(side, num, options.first_rounds, 4, chance)
    firsts = [median_ms([a.first_s for one in way for a in one.answers]) for way in (ours, theirs)]
    added = f"{firsts[0] - firsts[1]:+.1f} ms"
    add_row(table, str(num), "first token p50 ms", *(f"{first:.1f}" for first in firsts), added, "")


async def rounds(
    side: Side, num: int, count: int, num_tokens: int, chance: random.Random
) -> tuple[list[Round], list[Round]]:
    """Run rounds in turns: through HTTP, in process."""
    ours, theirs = [], []
    for _ in range(count):
        prompts = prompts_of(num, chance)
        ours.append(await side.through_http(prompts, num_tokens))
        theirs.append(await side.in_process(prompts, num_tokens))
    return ours, theirs


def add_gaps(table: Table, num: int, ours: list[Round], theirs: list[Round]) -> None:
    """Add how evenly chunks come."""
    cells, ratios = [], []
    for way in (ours, theirs):
        gaps = [gap for one in way for answer in one.answers for gap in answer.gaps_s]
        p50, p90 = percentile(gaps, 50) * 1000, percentile(gaps, 90) * 1000
        cells.append(f"{p50:.1f} / {p90:.1f}")
        ratios.append(f"{p90 / p50:.2f}")
    add_row(
        table, str(num), "gap p50 / p90 ms", *cells, f"p90/p50 {ratios[0]}", f"engine {ratios[1]}"
    )


async def compare(url: str, key: str, options: argparse.Namespace) -> Table:
    args = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["applications"][0]["args"]
    generator = GeneratorArgs(**args.get("generator", {}))
    engine = create_engine(generator)
    await engine.start()
    client = Client(url, key)
    table = Table(title=f"{options.rounds} rounds of {options.tokens} greedy tokens, in turns")
    for name in ("streams", "figure", "HTTP", "engine", "HTTP against engine", "worst ... best"):
        table.add_column(name, justify="right")
    try:
        for num in options.streams:
            await measure(Side(engine, client, generator.model), num, options, table)
    finally:
        client.close()
        await engine.stop()
    return table


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--first-rounds", type=int, default=10, help="rounds for the first token")
    parser.add_argument("--tokens", type=int, default=96, help="new tokens per stream")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--serve-mode", default=ServeMode.DIRECT, choices=list(ServeMode))
    options = parser.parse_args()
    with running(CONFIG, RAGSERVE_SERVE_MODE=options.serve_mode) as stack:
        Console(width=110).print(run(compare(stack.url, stack.key, options)))


if __name__ == "__main__":
    main()
