"""Two ways to answer, measured in turns: what one request takes, and how many are answered."""

import argparse
from dataclasses import dataclass

from cluster.serve_mode import ServeMode
from tests.bench.load import Client, median_ms


@dataclass(frozen=True)
class Side:
    """One of the two: what is asked, and whom."""

    client: Client
    request: bytes


@dataclass(frozen=True)
class Turn:
    """One after the other: ours first, its peer second."""

    times_ms: tuple[float, float]
    """Median of requests one at a time."""

    rates: tuple[float, float]
    """Requests per second over busy connections."""


def options_of(description: str | None, *, requests: int) -> argparse.Namespace:
    """Read the command line; `requests` is the default of each side and round."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=requests, help="of each side, each round")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--serve-mode", default=ServeMode.DIRECT, choices=list(ServeMode))
    return parser.parse_args()


async def in_turns(ours: Side, peer: Side, options: argparse.Namespace) -> list[Turn]:
    """Warm both up, measure both as often as the options say, and close the clients."""
    sides = (ours, peer)
    for side in sides:
        await side.client.in_turn(side.request, options.requests // 2)
    turns = []
    for _ in range(options.rounds):
        times = [await side.client.in_turn(side.request, options.requests) for side in sides]
        rates = [
            await side.client.saturate([side.request] * options.requests * 3, options.connections)
            for side in sides
        ]
        first, second = map(median_ms, times)
        turns.append(Turn((first, second), (rates[0], rates[1])))
    for side in sides:
        side.client.close()
    return turns
