"""What a batch costs and gives: its lines per second, and what others notice of it.

Fake engines. First the same requests are sent by hand, over more and more connections: the best of
these rates is what the batch is held against. Then the p99 of a few callers is measured, alone and
beside a batch, in turns. Example:

    python -m tests.bench.batches --lines 10000 --rounds 3 --requests 200
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import orjson
import yaml
from rich.console import Console
from rich.table import Table

from deployments.ingress.batches.pace import QUIET_S
from tests.bench.load import Client, percentile, run
from tests.stack import ROOT, Stack, running

CONNECTIONS = (8, 16, 32, 64)
NUM_ASKING = 4
BY_HAND = 600
"""Requests by hand: their rate is the same after fewer of them; a batch has to find its pace."""

BESIDE = 30_000
"""Lines of the batch that others notice: it outlasts what is measured beside it."""

TOKENS, TOKEN_S = 16, 0.005
POLL_S = 0.1
TIMEOUT_S = 120.0
ENDPOINT = "/v1/completions"
ENDED = ("completed", "failed", "expired", "cancelled")
MOST = 1.2
LEAST_SHARE = 0.95


def config() -> dict[str, Any]:
    """Return the fake configuration with answers of a known length."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "configs/fake.yaml").read_text("utf-8"))
    found["applications"][0]["args"]["generator"]["fake_token_delay_s"] = TOKEN_S
    return found


def body(number: int, model: str) -> dict[str, Any]:
    return {"model": model, "prompt": f"note {number}", "max_tokens": TOKENS}


class Batches:
    """Batches of one installation."""

    def __init__(self, stack: Stack) -> None:
        self._http = stack.client()
        self.model: str = self._http.get("/v1/models").raise_for_status().json()["data"][0]["id"]

    def create(self, num_lines: int) -> str:
        """Put a batch in, and return its id."""
        lines = [
            {"custom_id": f"{n}", "method": "POST", "url": ENDPOINT, "body": body(n, self.model)}
            for n in range(num_lines)
        ]
        text = b"\n".join(map(orjson.dumps, lines))
        sent = self._http.post("/v1/files", data={"purpose": "batch"}, files={"file": ("a", text)})
        order = {
            "input_file_id": sent.raise_for_status().json()["id"],
            "endpoint": ENDPOINT,
            "completion_window": "24h",
        }
        return str(self._ask(self._http.post("/v1/batches", json=order))["id"])

    def get(self, id_: str) -> dict[str, Any]:
        return self._ask(self._http.get(f"/v1/batches/{id_}"))

    def cancel(self, id_: str) -> None:
        self._ask(self._http.post(f"/v1/batches/{id_}/cancel"))

    async def end(self, id_: str) -> dict[str, Any]:
        """Wait for the end of a batch."""
        async with asyncio.timeout(TIMEOUT_S):
            while (batch := await asyncio.to_thread(self.get, id_))["status"] not in ENDED:
                await asyncio.sleep(POLL_S)
        return batch

    async def begin(self, id_: str) -> None:
        """Wait until the first lines of a batch are done."""
        async with asyncio.timeout(TIMEOUT_S):
            while not (await asyncio.to_thread(self.get, id_))["request_counts"]["completed"]:
                await asyncio.sleep(POLL_S)

    def _ask(self, answer: httpx.Response) -> dict[str, Any]:
        found: dict[str, Any] = answer.raise_for_status().json()
        return found


async def rates(client: Client, batches: Batches, num_lines: int) -> tuple[dict[int, float], float]:
    """Return the requests per second by hand for each number of connections, and the batch's."""
    num_by_hand = min(num_lines, BY_HAND)
    requests = [client.request(ENDPOINT, body(n, batches.model)) for n in range(num_by_hand)]
    by_hand = {count: await client.saturate(requests, count) for count in CONNECTIONS}
    await asyncio.sleep(QUIET_S)  # a batch makes way for a while after others have gone
    started = time.perf_counter()
    batch = await batches.end(await asyncio.to_thread(batches.create, num_lines))
    seconds = time.perf_counter() - started
    assert batch["request_counts"]["completed"] == num_lines, batch
    return by_hand, num_lines / seconds


async def p99_ms(client: Client, batches: Batches, count: int) -> float:
    """Return the p99 of a few callers, each with one request at a time."""
    request = client.request(ENDPOINT, body(0, batches.model))
    connections = await client.connections(NUM_ASKING)

    async def ask(one: Any) -> list[float]:
        replies = [await one.ask(request) for _ in range(count // NUM_ASKING)]
        assert all(reply.status == 200 for reply in replies)
        return [reply.seconds * 1000 for reply in replies]

    times = [ms for some in await asyncio.gather(*map(ask, connections)) for ms in some]
    return percentile(times, 99)


async def compare(stack: Stack, options: argparse.Namespace) -> list[Table]:
    """Measure the rates, then the p99 alone and beside a batch in turns."""
    client, batches = Client(stack.url, stack.key), Batches(stack)
    await p99_ms(client, batches, 40)
    measured = [await rates(client, batches, options.lines) for _ in range(options.rounds)]
    hands = {count: statistics.median(one[0][count] for one in measured) for count in CONNECTIONS}
    pace = statistics.median(one[1] for one in measured)
    best = max(hands, key=hands.__getitem__)
    table = Table(title=f"lines per second, medians of {options.rounds} rounds")
    for name in (*(f"{count} connections" for count in CONNECTIONS), "batch", "batch / best"):
        table.add_column(name, justify="right")
    share = pace / hands[best]
    ratio = f"{share:.2f} (≥ {LEAST_SHARE:g}: {'met' if share >= LEAST_SHARE else 'missed'})"
    table.add_row(*(f"{hands[count]:.0f}" for count in CONNECTIONS), f"{pace:.0f}", ratio)
    rows = []
    for _ in range(options.rounds):
        alone = await p99_ms(client, batches, options.requests)
        id_ = await asyncio.to_thread(batches.create, BESIDE)
        await batches.begin(id_)
        beside = await p99_ms(client, batches, options.requests)
        status = (await asyncio.to_thread(batches.get, id_))["status"]
        assert status == "in_progress", f"there was nothing beside: the batch was {status}"
        await asyncio.to_thread(batches.cancel, id_)
        await batches.end(id_)
        rows.append((alone, beside, beside / alone))
    client.close()
    return [table, _p99_table(rows)]


def _p99_table(rows: list[tuple[float, float, float]]) -> Table:
    ratio = statistics.median(row[2] for row in rows)
    table = Table(title=f"p99 of {NUM_ASKING} callers, medians of {len(rows)} rounds")
    for name in ("alone ms", "beside a batch ms", "ratio", "goal"):
        table.add_column(name, justify="right")
    medians = (statistics.median(row[side] for row in rows) for side in (0, 1))
    goal = f"≤ {MOST:g}: {'met' if ratio <= MOST else 'missed'}"
    table.add_row(*(f"{median:.1f}" for median in medians), f"{ratio:.2f}", goal)
    return table


def main() -> None:
    """Read the command line and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=int, default=10_000, help="of the batch that is timed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=200, help="of each measurement of a p99")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "batches.yaml"
        path.write_text(yaml.safe_dump(config()), encoding="utf-8")
        with running(path) as stack:
            for table in run(compare(stack, options)):
                Console(width=110).print(table)


if __name__ == "__main__":
    main()
