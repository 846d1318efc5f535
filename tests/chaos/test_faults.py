"""Clients that leave, replicas that die, and more load than there is room for."""

import asyncio
import re
import time

import httpx
import orjson
import psutil
import pytest

from tests.stack import Stack

LONG = "x" * 2000  # 2,000 fake tokens of 20 ms: longer than any test here waits


def chat(content: str, *, stream: bool = True, **options: object) -> dict[str, object]:
    messages = [{"role": "user", "content": content}]
    return {"model": "fake", "messages": messages, "stream": stream, "max_tokens": 2000, **options}


def gauge(client: httpx.Client, name: str) -> float:
    page = client.get("/v1/metrics").raise_for_status().text
    match = re.search(rf"^{name} (\S+)$", page, re.MULTILINE)
    assert match is not None, f"no gauge {name}"
    return float(match[1])


def wait_for_running(client: httpx.Client, wanted: float, timeout_s: float) -> float:
    began = time.monotonic()
    while gauge(client, "ragserve_generator_requests_running") != wanted:
        assert time.monotonic() - began < timeout_s, "the number of running sequences is off"
        time.sleep(0.05)
    return time.monotonic() - began


@pytest.mark.parametrize("stream", [True, False])
def test_abandoned_request_frees_its_slot(stack: Stack, client: httpx.Client, stream: bool) -> None:
    wait_for_running(client, 0, 10)

    async def abandon() -> None:
        async with stack_client(stack) as own:
            task = asyncio.create_task(read(own, chat(LONG, stream=stream)))
            await asyncio.to_thread(wait_for_running, client, 1, 5)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(abandon())
    assert wait_for_running(client, 0, 2) < 2


def stack_client(stack: Stack) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=1200, max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=stack.url, headers=stack.headers, timeout=120, limits=limits)


async def read(client: httpx.AsyncClient, body: dict[str, object]) -> tuple[int, list[dict]]:
    """Return the status and the events of a stream; one event when it is a plain body."""
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        if "event-stream" not in response.headers["content-type"]:
            return response.status_code, [orjson.loads(await response.aread())]
        lines = [line async for line in response.aiter_lines()]
    events = [orjson.loads(line[6:]) for line in lines if line.startswith("data: {")]
    if "data: [DONE]" in lines:
        events.append({"done": True})
    return response.status_code, events


def generators(stack: Stack) -> list[psutil.Process]:
    mine = str(stack.state_dir)
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any("ServeReplica:ragserve:Generator" in part for part in process.info["cmdline"] or ()):
            try:
                if process.environ().get("RAGSERVE_STATE_DIR") == mine:
                    found.append(process)
            except psutil.Error:
                continue
    return found


def test_killed_replica_fails_its_streams_only_and_comes_back(
    stack: Stack, client: httpx.Client
) -> None:
    victims = generators(stack)
    assert len(victims) == 2

    async def scenario() -> tuple[list[list[dict]], list[float], tuple[int, list[dict]]]:
        ends: list[float] = []
        async with stack_client(stack) as own:

            async def timed() -> list[dict]:
                status, events = await read(own, chat("y" * 400))
                assert status == 200
                ends.append(time.monotonic())
                return events

            tasks = [asyncio.create_task(timed()) for _ in range(12)]
            await asyncio.to_thread(wait_for_running, client, 12, 10)
            killed_at = time.monotonic()
            victims[0].kill()
            after = await read(own, chat("new request", stream=False))
            answers = await asyncio.gather(*tasks)
        return answers, [end - killed_at for end in ends], after

    answers, ends_s, after = asyncio.run(scenario())
    failed = [events for events in answers if "error" in events[-1]]
    whole = [events for events in answers if events[-1].get("done")]
    assert failed
    assert whole
    assert len(failed) + len(whole) == len(answers)
    assert all("choices" not in events[-1] for events in failed)
    assert all(events[-1]["error"]["code"] == "engine_failed" for events in failed)
    assert sorted(ends_s)[: len(failed)][-1] < 5
    assert after[0] == 200
    deadline = time.monotonic() + 60
    while gauge(client, "ragserve_generator_replicas") < 2:
        assert time.monotonic() < deadline, "the killed replica did not come back"
        time.sleep(0.5)


def test_overload_is_refused_and_memory_stays_bounded(stack: Stack, client: httpx.Client) -> None:
    def resident_bytes() -> int:
        total = 0
        for process in psutil.process_iter(["cmdline"]):
            if any("ServeReplica:" in part for part in process.info["cmdline"] or ()):
                total += process.memory_info().rss
        return total

    before = resident_bytes()

    async def flood() -> list[tuple[int, str | None]]:
        async with stack_client(stack) as own:

            async def one() -> tuple[int, str | None]:
                async with own.stream(
                    "POST", "/v1/chat/completions", json=chat("z" * 200)
                ) as response:
                    body = await response.aread()
                    if response.status_code != 200:
                        assert orjson.loads(body)["error"]["code"], body[:200]
                    return response.status_code, response.headers.get("retry-after")

            return await asyncio.gather(*(one() for _ in range(1000)))

    answers = asyncio.run(flood())
    grown = resident_bytes() - before
    refused = [(status, after) for status, after in answers if status != 200]
    assert {status for status, _ in answers} <= {200, 429, 503}
    assert refused
    assert all(after is not None and int(after) >= 1 for _, after in refused)
    assert sum(status == 200 for status, _ in answers) >= 32
    assert grown < 400 * 2**20
    wait_for_running(client, 0, 30)
    client.get("/v1/health").raise_for_status()
