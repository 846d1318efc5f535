"""What all checks of the gateway cost: a no-op route behind them, and the same without.

Key, scope, addresses, limits (three of the key), slots, and the audit log, in an application of its
own, against the bare route; in turns, in the same Serve instance, through the same edge. Example:

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

from cluster.serve_mode import ServeMode
from tests.bench.load import Client, median_ms, run
from tests.stack import ROOT, Stack, running

MOST_ADDED_MS = 1.0
LEAST_SHARE = 0.9
SIDES = {"gated": "Gated", "ungated": "Ungated"}


def config() -> dict[str, Any]:
    """Return the fake configuration with both sides beside it."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "configs/fake.yaml").read_text("utf-8"))
    for deployment in found["applications"][0]["deployments"]:
        deployment["num_replicas"] = 1
    found["applications"] += [
        {
            "name": name,
            "route_prefix": f"/{name}",
            "import_path": "tests.bench.gated:build",
            "args": {"is_gated": name == "gated"},
            "deployments": [
                {
                    "name": deployment,
                    "max_ongoing_requests": 1024,
                    "ray_actor_options": {"num_cpus": 0.5},
                }
            ],
        }
        for name, deployment in SIDES.items()
    ]
    return found


async def compare(stack: Stack, options: argparse.Namespace) -> Table:
    """Measure both sides in turns."""
    made = stack.command("keys", "create", "bench")
    client = Client(stack.url, made.stdout.strip())
    gated, ungated = (client.request(f"/{name}/noop", {}) for name in SIDES)
    for request in (gated, ungated):
        await client.in_turn(request, 100)
    pairs, shares = [], []
    for _ in range(options.rounds):
        times = [median_ms(await client.in_turn(one, options.requests)) for one in (gated, ungated)]
        pairs.append(times)
        rates = [
            await client.saturate([one] * options.requests * 3, options.connections)
            for one in (gated, ungated)
        ]
        shares.append((*rates, rates[0] / rates[1]))
    client.close()
    added = statistics.median(ours - bare for ours, bare in pairs)
    share = statistics.median(one[2] for one in shares)
    table = Table(title=f"medians of {options.rounds} rounds in turns")
    for name in ("figure", "gated", "ungated", "cost", "goal"):
        table.add_column(name, justify="right")
    table.add_row(
        "p50 ms, one at a time",
        *(f"{statistics.median(one[side] for one in pairs):.2f}" for side in (0, 1)),
        f"+{added:.2f} ms",
        f"≤ {MOST_ADDED_MS:g}: {'met' if added <= MOST_ADDED_MS else 'missed'}",
    )
    table.add_row(
        f"requests/s, {options.connections} connections",
        *(f"{statistics.median(one[side] for one in shares):.0f}" for side in (0, 1)),
        f"{share:.2f} ×",
        f"≥ {LEAST_SHARE:g}: {'met' if share >= LEAST_SHARE else 'missed'}",
    )
    return table


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=300, help="of each side, each round")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--serve-mode", default=ServeMode.DIRECT, choices=list(ServeMode))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gateway.yaml"
        path.write_text(yaml.safe_dump(config()), encoding="utf-8")
        with running(path, RAGSERVE_SERVE_MODE=options.serve_mode) as stack:
            Console(width=100).print(run(compare(stack, options)))


if __name__ == "__main__":
    main()
