"""What the graph costs beyond its handle calls: a grounded answer beside three bare hops.

Fake engines and one real collection; `POST /v1/inference` with retrieval and one token against an
application that does nothing but three handle calls (`bare.py`), in turns, each in an installation
of its own, since an edge sends only the application at `/` straight to its replicas. Example:

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

from tests.bench.bare import HOPS
from tests.bench.load import Client, run
from tests.bench.turns import Side, in_turns, options_of
from tests.stack import ROOT, Stack, running

COLLECTION = "bench"
QUESTION = "Which port does the edge listen on?"


def configs() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return two configurations: the graph, of fakes without delays, one each; and its peer."""
    ours: dict[str, Any] = yaml.safe_load((ROOT / "configs/fake.yaml").read_text("utf-8"))
    graph = ours["applications"][0]
    graph["args"]["generator"]["fake_token_delay_s"] = 0
    for deployment in graph["deployments"]:
        deployment["num_replicas"] = 1
    how_much = {key: graph["deployments"][0][key] for key in ("max_ongoing_requests",)}
    bare = {
        "name": "bare",
        "route_prefix": "/",
        "import_path": "tests.bench.bare:build",
        "deployments": [
            {"name": name, **how_much, "ray_actor_options": {"num_cpus": 0.5}}
            for name in ("Bare", *HOPS)
        ],
    }
    return ours, {**ours, "applications": [bare]}


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


async def compare(stack: Stack, peer: Stack, options: argparse.Namespace) -> Table:
    """Measure both in turns."""
    clients = [Client(one.url, one.key) for one in (stack, peer)]
    graph = Side(clients[0], clients[0].request("/v1/inference", grounded()))
    bare = Side(clients[1], clients[1].request("/hops", {"value": QUESTION}))
    turns = await in_turns(graph, bare, options)
    ratios = sorted(ours / theirs for ours, theirs in (turn.times_ms for turn in turns))
    speeds = sorted(ours / theirs for ours, theirs in (turn.rates for turn in turns))
    table = Table(title=f"medians of {options.rounds} rounds in turns")
    for name in ("figure", "graph", "three bare hops", "graph / bare", "worst ... best"):
        table.add_column(name, justify="right")
    table.add_row(
        "p50 ms, one at a time",
        *(f"{statistics.median(turn.times_ms[side] for turn in turns):.2f}" for side in (0, 1)),
        f"{statistics.median(ratios):.2f}",
        f"{ratios[-1]:.2f} ... {ratios[0]:.2f}",
    )
    table.add_row(
        f"requests/s, {options.connections} connections",
        *(f"{statistics.median(turn.rates[side] for turn in turns):.0f}" for side in (0, 1)),
        f"{statistics.median(speeds):.2f}",
        f"{speeds[0]:.2f} ... {speeds[-1]:.2f}",
    )
    return table


def main() -> None:
    """Read the command line and print the table."""
    options = options_of(__doc__, requests=100)
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, config in zip(("graph", "bare"), configs(), strict=True):
            paths.append(Path(folder) / f"{name}.yaml")
            paths[-1].write_text(yaml.safe_dump(config), encoding="utf-8")
        mode = {"RAGSERVE_SERVE_MODE": options.serve_mode}
        with running(paths[0], **mode) as stack, running(paths[1], **mode) as peer:
            index(stack)
            Console(width=100).print(run(compare(stack, peer, options)))


if __name__ == "__main__":
    main()
