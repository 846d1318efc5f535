"""Tasks: what it costs to put one in, how soon it begins, and how many are done.

Against an installation with fake engines whose workers do nothing, so that the queue alone is
measured. Tasks are put in beside requests to the route that does nothing and asks no key
(`/v1/health`), and to the lightest one behind the checks that they pass, too (`LIGHT`). Those that
are then done all wait at one instant: in the table, or as messages of the broker. Example:

    python -m tests.bench.tasks --broker embedded rabbit redis --tasks 2000
"""

import argparse
import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from deployments.ingress.tasks.crew import UNTOLD_S
from tests.bench.load import Client, median_ms, run
from tests.bench.noop_tasks import HOLD
from tests.servers.rabbit_server import running_rabbit
from tests.servers.redis_server import running_redis
from tests.stack import ROOT, Stack, running

LIGHT = "/v1/webhooks/secret"
"""It computes a hash, and reads nothing."""

BODY = {"prompt": "x", "max_tokens": 1}
CONNECTIONS = 32
SUBMIT_MS, START_MS, LEAST_SHARE = 20.0, 20.0, 0.5
LEAST_RATE = {"embedded": 300.0, "rabbit": 500.0, "redis": 0.0}
PATIENCE_S = 120.0
LEAD_S = 4.0
PUBLISHED = 250
"""Messages per second that are published at least, after the last task was put in."""


def config() -> dict[str, Any]:
    """Return the fake profile with workers that do nothing."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "configs/fake.yaml").read_text("utf-8"))
    found["applications"][0]["import_path"] = "tests.bench.noop_tasks:build"
    return found


@contextlib.contextmanager
def broker(name: str) -> Iterator[str]:
    """Yield the address of a broker of our own; empty: there is none."""
    if name == "rabbit":
        with running_rabbit() as rabbit:
            yield rabbit.url
    elif name == "redis":
        with running_redis() as redis:
            yield redis.url
    else:
        yield ""


async def task_of(client: Client, task_id: str, wait_s: float = 0) -> dict[str, Any]:
    """Return a task."""
    path = f"/v1/tasks/{task_id}?wait_s={wait_s:g}"
    (reply,), _ = await client.at_once([client.request(path)])
    return reply.json()  # type: ignore[no-any-return]


async def idle(client: Client, num_tasks: int) -> tuple[float, float]:
    """Return the medians of putting a task in and of its wait for a worker, in ms, one by one."""
    replies, waits = [], []
    for _ in range(num_tasks):
        (reply,), _ = await client.at_once([client.request("/v1/inference/async", BODY)])
        assert reply.status == 202, reply.raw
        replies.append(reply)
        task = await task_of(client, reply.json()["task_id"], 30)
        assert task["status"] == "COMPLETED", task
        begun, made = (datetime.fromisoformat(task[name]) for name in ("started_at", "created_at"))
        waits.append((begun - made).total_seconds() * 1000)
        await asyncio.sleep(0.01)
    return median_ms([reply.seconds for reply in replies]), statistics.median(waits)


async def drained(client: Client, num_tasks: int) -> float:
    """Return tasks per second, from the instant at which all in the table may begin to the end."""
    begin = time.time() + LEAD_S + num_tasks / 150
    body = {**BODY, "not_before": datetime.fromtimestamp(begin, UTC).isoformat()}
    request = client.request("/v1/inference/async", body)
    await client.saturate([request] * num_tasks, CONNECTIONS)
    assert time.time() < begin, "the tasks were put in too slowly to be done together"
    return await _rate(client, begin, num_tasks)


async def consumed(client: Client, num_tasks: int, hold: Path) -> float:
    """Return tasks per second, from the instant at which consumers go on to the last end.

    All messages are with the broker, or its consumers, by then.
    """
    hold.touch()
    try:
        started = time.monotonic()
        await client.saturate(
            [client.request("/v1/inference/async", BODY)] * num_tasks, CONNECTIONS
        )
        await asyncio.sleep(num_tasks / PUBLISHED)
        assert time.monotonic() - started < UNTOLD_S, "the first are found by looking by now"
    finally:
        begin = time.time()
        hold.unlink()
    return await _rate(client, begin, num_tasks)


async def flowing(client: Client, num_tasks: int) -> float:
    """Return tasks per second from the first one put in to the last end, all at once."""
    begin = time.time()
    request = client.request("/v1/inference/async", BODY)
    await client.saturate([request] * num_tasks, CONNECTIONS)
    return await _rate(client, begin, num_tasks)


async def _rate(client: Client, begin: float, num_tasks: int) -> float:
    until = time.monotonic() + PATIENCE_S
    while True:
        (reply,), _ = await client.at_once([client.request("/v1/tasks?limit=1000")])
        tasks = reply.json()["data"][:num_tasks]
        if all(task["status"] == "COMPLETED" for task in tasks):
            break
        assert time.monotonic() < until
        await asyncio.sleep(0.1)
    last = max(datetime.fromisoformat(task["completed_at"]).timestamp() for task in tasks)
    return num_tasks / (last - begin)


async def measure(stack: Stack, name: str, options: argparse.Namespace) -> list[list[str]]:
    """Return the rows of one broker."""
    client, hold = Client(stack.url, stack.key), stack.state_dir / HOLD
    await idle(client, 20)
    submit_ms, start_ms = await idle(client, options.idle)
    shares = []
    for _ in range(options.rounds):
        noop, light = [
            await client.saturate([client.request(path)] * options.tasks, CONNECTIONS)
            for path in ("/v1/health", LIGHT)
        ]
        submit = client.request("/v1/inference/async", {**BODY, "not_before": "2100-01-01T00:00Z"})
        put = await client.saturate([submit] * options.tasks, CONNECTIONS)
        shares.append((put / noop, put / light, put, noop, light))
    if name == "embedded":
        rates = [await drained(client, options.tasks) for _ in range(options.rounds)]
    else:
        rates = [await consumed(client, options.tasks, hold) for _ in range(options.rounds)]
    flows = [await flowing(client, options.tasks) for _ in range(options.rounds)]
    client.close()
    share, light_share, put, noop, light = map(statistics.median, zip(*shares, strict=True))
    rate, flow = statistics.median(rates), statistics.median(flows)
    return [
        [name, "put in, p50", f"{submit_ms:.1f} ms", f"≤ {SUBMIT_MS:g}: {met(submit_ms <= 20)}"],
        [name, "begins after, p50", f"{start_ms:.1f} ms", f"≤ {START_MS:g}: {met(start_ms <= 20)}"],
        [
            name,
            "put in ÷ /v1/health",
            f"{share:.2f} ({put:.0f} / {noop:.0f} per s)",
            f"≥ {LEAST_SHARE:g}: {met(share >= LEAST_SHARE)}",
        ],
        [name, f"put in ÷ {LIGHT}", f"{light_share:.2f} ({put:.0f} / {light:.0f} per s)", ""],
        [
            name,
            "queue to stored result",
            f"{rate:.0f} per s",
            f"≥ {LEAST_RATE[name]:g}: {met(rate >= LEAST_RATE[name])}",
        ],
        [name, "put in and done at once", f"{flow:.0f} per s", ""],
    ]


def met(is_met: bool) -> str:
    """Return the word for it."""
    return "met" if is_met else "missed"


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--broker", nargs="+", default=[*LEAST_RATE], choices=[*LEAST_RATE])
    parser.add_argument("--tasks", type=int, default=1000, help="of each round, up to 1,000")
    parser.add_argument("--idle", type=int, default=100, help="tasks put in one by one")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    table = Table(title=f"medians of {options.rounds} rounds, {CONNECTIONS} connections")
    for name in ("broker", "figure", "measured", "goal"):
        table.add_column(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tasks.yaml"
        path.write_text(yaml.safe_dump(config()), encoding="utf-8")
        for name in options.broker:
            with broker(name) as url, running(path, RAGSERVE_BROKER_URL=url) as stack:
                for row in run(measure(stack, name, options)):
                    table.add_row(*row)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
