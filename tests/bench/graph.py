"""What the graph costs beyond its handle calls: a grounded answer beside three bare hops.

Fake engines and one real collection; `POST /v1/inference` with retrieval and one token against an
application that does nothing but three handle calls (`bare.py`), in turns, in the same Serve
instance, through the same edge. Example:

    python -m tests.bench.graph --rounds 5 --requests 100 --connections 32
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
from tests.bench.bare import HOPS
from tests.bench.load import Client, median_ms, run
from tests.stack import ROOT, Stack, running

COLLECTION = "bench"
QUESTION = "Which port does the edge listen on?"


def config_with_bare() -> dict[str, Any]:
    """Return the fake configuration without delays, one replica each, and the peer beside it."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "configs/fake.yaml").read_text("utf-8"))
    graph = config["applications"][0]
    graph["args"]["generator"]["fake_token_delay_s"] = 0
    for deployment in graph["deployments"]:
        deployment["num_replicas"] = 1
    how_much = {key: graph["deployments"][0][key] for key in ("max_ongoing_requests",)}
    peer = {
        "name": "bare",
        "route_prefix": "/bare",
        "import_path": "tests.bench.bare:build",
        "deployments": [
            {"name": name, **how_much, "ray_actor_options": {"num_cpus": 0.5}}
            for name in ("Bare", *HOPS)
        ],
    }
    config["applications"].append(peer)
    return config


def index(stack: Stack) -> None:
    """Store a few documents to find."""
    documents = [
        {"id": f"d{n}", "text": f"Note {n}: the edge listens on port {8080 + n}."}
        for n in range(20)
    ]
    with stack.client() as client:
        body = {"collection": COLLECTION, "documents": documents}
        client.post("/v1/data/index", json=body).raise_for_status()
        answer = client.post("/v1/inference", json=grounded()).raise_for_status().json()
        assert answer["sources"], "the graph's peer would have less to do"


def grounded() -> dict[str, Any]:
    return {"prompt": QUESTION, "max_tokens": 1, "retrieval": {"collection": COLLECTION}}


async def compare(stack: Stack, options: argparse.Namespace) -> Table:
    client = Client(stack.url, stack.key)
    graph = client.request("/v1/inference", grounded())
    bare = client.request("/bare/hops", {"value": QUESTION})
    for request in (graph, bare):
        await client.in_turn(request, 50)
    ours, theirs, ratios, rates = [], [], [], []
    for _ in range(options.rounds):
        ours.append(median_ms(await client.in_turn(graph, options.requests)))
        theirs.append(median_ms(await client.in_turn(bare, options.requests)))
        ratios.append(ours[-1] / theirs[-1])
        rates.append(
            [
                await client.saturate([request] * options.requests * 3, options.connections)
                for request in (graph, bare)
            ]
        )
    client.close()
    table = Table(title=f"medians of {options.rounds} rounds in turns")
    for name in ("figure", "graph", "three bare hops", "graph / bare", "worst ... best"):
        table.add_column(name, justify="right")
    table.add_row(
        "p50 ms, one at a time",
        f"{statistics.median(ours):.2f}",
        f"{statistics.median(theirs):.2f}",
        f"{statistics.median(ratios):.2f}",
        f"{max(ratios):.2f} ... {min(ratios):.2f}",
    )
    speeds = sorted(graph_rate / bare_rate for graph_rate, bare_rate in rates)
    table.add_row(
        f"requests/s, {options.connections} connections",
        *(f"{statistics.median(rate[side] for rate in rates):.0f}" for side in (0, 1)),
        f"{statistics.median(speeds):.2f}",
        f"{speeds[0]:.2f} ... {speeds[-1]:.2f}",
    )
    return table


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=100, help="of each side, each round")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--serve-mode", default=ServeMode.DIRECT, choices=list(ServeMode))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "graph.yaml"
        config.write_text(yaml.safe_dump(config_with_bare()), encoding="utf-8")
        with running(config, RAGSERVE_SERVE_MODE=options.serve_mode) as stack:
            index(stack)
            Console(width=100).print(run(compare(stack, options)))


if __name__ == "__main__":
    main()
