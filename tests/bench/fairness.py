"""What a tenant notices of another's flood: its p99 alone, and beside ten times what can be done.

Fake engines whose answers take 0.4 s, 16 slots, two tenants. The flood comes by schedule, whatever
the answers are; most of it is refused. Example:

    python -m tests.bench.fairness --rounds 3 --requests 200
"""

import argparse
import asyncio
import statistics
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from tests.bench.load import Client, percentile, run
from tests.stack import ROOT, Stack, running

NUM_SLOTS = 16
TOKENS, TOKEN_S = 8, 0.05
FLOOD_PER_S = 10 * NUM_SLOTS / (TOKENS * TOKEN_S)
NUM_FLOODING = 128
NUM_ASKING = 4
MOST = 2.0
BODY = {"prompt": "hi", "max_tokens": TOKENS}


def config() -> dict[str, Any]:
    """Return the fake configuration with few slots and slow answers."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "configs/fake.yaml").read_text("utf-8"))
    application = found["applications"][0]
    application["args"]["generator"]["fake_token_delay_s"] = TOKEN_S
    application["args"]["ingress"]["max_requests_in_flight"] = NUM_SLOTS
    return found


def client_of(stack: Stack, tenant: str) -> Client:
    """Return a client with a key of a new tenant."""
    made = stack.command("keys", "create", tenant, "--tenant", tenant)
    return Client(stack.url, made.stdout.strip())


async def flood(client: Client, statuses: Counter[int]) -> None:
    """Ask by schedule until cancelled."""
    request = client.request("/v1/inference", BODY)
    loop = asyncio.get_running_loop()
    period_s = NUM_FLOODING / FLOOD_PER_S

    async def ask(one: Any, due_s: float) -> None:
        while True:
            await asyncio.sleep(due_s - loop.time())
            statuses[(await one.ask(request)).status] += 1
            due_s = max(due_s + period_s, loop.time())

    now_s = loop.time()
    connections = await client.connections(NUM_FLOODING)
    starts = (now_s + number / FLOOD_PER_S for number in range(NUM_FLOODING))
    await asyncio.gather(*map(ask, connections, starts))


async def times_ms(client: Client, count: int) -> list[float]:
    """Ask that often over a few connections; every answer must be one."""
    request = client.request("/v1/inference", BODY)
    connections = await client.connections(NUM_ASKING)

    async def ask(one: Any) -> list[float]:
        replies = [await one.ask(request) for _ in range(count // NUM_ASKING)]
        assert all(reply.status == 200 for reply in replies), "the flood got it refused"
        return [reply.seconds * 1000 for reply in replies]

    return [ms for some in await asyncio.gather(*map(ask, connections)) for ms in some]


async def compare(stack: Stack, options: argparse.Namespace) -> Table:
    """Measure alone and beside the flood, in turns."""
    noisy, quiet = (client_of(stack, tenant) for tenant in ("noisy", "quiet"))
    statuses: Counter[int] = Counter()
    rows = []
    for _ in range(options.rounds):
        alone = percentile(await times_ms(quiet, options.requests), 99)
        flooding = asyncio.ensure_future(flood(noisy, statuses))
        await asyncio.sleep(1)
        beside = percentile(await times_ms(quiet, options.requests), 99)
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
        noisy.close()
        rows.append((alone, beside, beside / alone))
    quiet.close()
    ratio = statistics.median(row[2] for row in rows)
    table = Table(title=f"p99 of the quiet tenant, medians of {options.rounds} rounds")
    for name in ("alone ms", "beside a flood ms", "ratio", "goal", "the flood got"):
        table.add_column(name, justify="right")
    table.add_row(
        *(f"{statistics.median(row[side] for row in rows):.0f}" for side in (0, 1)),
        f"{ratio:.2f}",
        f"≤ {MOST:g}: {'met' if ratio <= MOST else 'missed'}",
        ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items())),
    )
    return table


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=200, help="of each measurement")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fairness.yaml"
        path.write_text(yaml.safe_dump(config()), encoding="utf-8")
        with running(path) as stack:
            Console(width=110).print(run(compare(stack, options)))


if __name__ == "__main__":
    main()
