"""What all checks of the gateway cost: a no-op route behind them, and the same without.

Key, scope, addresses, limits (three of the key), slots, and the audit log, in an application of its
own, against the bare route; in turns, in the same replica, through the same edge. Example:

    python -m tests.bench.gateway --rounds 5 --requests 300 --connections 32
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from tests.bench.gated import GATED, UNGATED
from tests.bench.load import Client, run
from tests.bench.turns import Side, in_turns, options_of
from tests.stack import ROOT, Stack, running

MOST_ADDED_MS = 1.0
LEAST_SHARE = 0.9


def config() -> dict[str, Any]:
    """Return a configuration of the bench alone: the edge sends only `/` straight on."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "configs/fake.yaml").read_text("utf-8"))
    found["applications"] = [
        {
            "name": "bench",
            "route_prefix": "/",
            "import_path": "tests.bench.gated:build",
            "deployments": [{"name": "Both", "max_ongoing_requests": 1024}],
        }
    ]
    return found


async def compare(stack: Stack, options: argparse.Namespace) -> Table:
    """Measure both sides in turns."""
    made = stack.command("keys", "create", "bench")
    client = Client(stack.url, made.stdout.strip())
    gated, ungated = (Side(client, client.request(path, {})) for path in (GATED, UNGATED))
    turns = await in_turns(gated, ungated, options)
    added = statistics.median(gated - bare for gated, bare in (turn.times_ms for turn in turns))
    share = statistics.median(gated / bare for gated, bare in (turn.rates for turn in turns))
    table = Table(title=f"medians of {options.rounds} rounds in turns")
    for name in ("figure", "gated", "ungated", "cost", "goal"):
        table.add_column(name, justify="right")
    table.add_row(
        "p50 ms, one at a time",
        *(f"{statistics.median(turn.times_ms[side] for turn in turns):.2f}" for side in (0, 1)),
        f"+{added:.2f} ms",
        f"≤ {MOST_ADDED_MS:g}: {'met' if added <= MOST_ADDED_MS else 'missed'}",
    )
    table.add_row(
        f"requests/s, {options.connections} connections",
        *(f"{statistics.median(turn.rates[side] for turn in turns):.0f}" for side in (0, 1)),
        f"{share:.2f} ×",
        f"≥ {LEAST_SHARE:g}: {'met' if share >= LEAST_SHARE else 'missed'}",
    )
    return table


def main() -> None:
    """Read the command line and print the table."""
    options = options_of(__doc__, requests=300)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gateway.yaml"
        path.write_text(yaml.safe_dump(config()), encoding="utf-8")
        with running(path, RAGSERVE_SERVE_MODE=options.serve_mode) as stack:
            Console(width=100).print(run(compare(stack, options)))


if __name__ == "__main__":
    main()
