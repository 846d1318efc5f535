"""How fast the modes of Serve move a request: the figures behind the default of `--serve-mode`.

Fake engines; each mode is an installation of its own, one after another. Example:

    python -m tests.bench.modes --modes grpc haproxy default --requests 100
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from cluster.serve_mode import ServeMode
from tests.bench.graph import COLLECTION, QUESTION, config_with_bare, index
from tests.bench.load import Client, median_ms, run
from tests.stack import Stack, running

STREAM_TOKENS = 100


def kinds(client: Client) -> dict[str, bytes]:
    """Return what is asked, by name."""
    search = {"collection": COLLECTION, "query": QUESTION, "top_k": 3}
    stream = {"prompt": "word " * STREAM_TOKENS, "max_tokens": STREAM_TOKENS, "stream": True}
    return {
        "no-op": client.request("/v1/health"),
        "search": client.request("/v1/data/search", search),
        f"stream of {STREAM_TOKENS}": client.request("/v1/inference", stream),
    }


async def measure(stack: Stack, options: argparse.Namespace) -> list[tuple[str, str, str]]:
    """Return, for each kind, its p50 alone and its rate at many connections."""
    client = Client(stack.url, stack.key)
    rows = []
    for name, request in kinds(client).items():
        count = options.requests if "stream" not in name else options.requests // 2
        await client.in_turn(request, 20)
        p50 = median_ms(await client.in_turn(request, count))
        rates = [
            await client.saturate([request] * count * 3, options.connections) for _ in range(3)
        ]
        rows.append((name, f"{p50:.2f}", f"{statistics.median(rates):.0f}"))
    client.close()
    return rows


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--modes", nargs="+", default=list(ServeMode))
    parser.add_argument("--requests", type=int, default=100, help="of each kind; thrice for rates")
    parser.add_argument("--connections", type=int, default=32)
    options = parser.parse_args()
    table = Table("mode", "request", "p50 ms", f"requests/s, {options.connections} connections")
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "modes.yaml"
        config.write_text(yaml.safe_dump(config_with_bare()), encoding="utf-8")
        for mode in options.modes:
            with running(config, RAGSERVE_SERVE_MODE=mode) as stack:
                index(stack)
                for row in run(measure(stack, options)):
                    table.add_row(mode, *row)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
