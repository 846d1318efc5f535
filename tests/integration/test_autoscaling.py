"""Replicas follow the load, up, down, to zero and back, and no request is lost on the way."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import orjson
import pytest

from cluster.run_record import running_record
from cluster.serve_api import ServeApi
from cluster.state import StateFolder
from tests.stack import Stack, running

FOLLOW_TIMEOUT_S = 40.0
"""Longest wait for replicas that come or go; on a quiet machine they take a few seconds."""

WORDS = "many words that have to be embedded one after the other " * 20


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running(Path(__file__).parent / "scaling.yaml") as stack:
        yield stack


@pytest.fixture(scope="module")
def replicas(stack: Stack) -> Callable[[str], int]:
    """Return a function that says how many replicas of a deployment run now."""
    state = StateFolder(stack.state_dir)
    api = ServeApi(running_record(state).dashboard_url, state.ray_token.read_text().strip())

    def count(name: str) -> int:
        [application] = api.applications()
        return next(one.running for one in application.deployments if one.name == name)

    return count


def chat(client: httpx.Client, text: str) -> str:
    body = {"model": "fake", "messages": [{"role": "user", "content": text}]}
    answer = client.post("/v1/chat/completions", json=body).raise_for_status().json()
    return answer["choices"][0]["message"]["content"]


def stream(client: httpx.Client, text: str) -> str:
    messages = [{"role": "user", "content": text}]
    body = {"model": "fake", "messages": messages, "stream": True, "max_tokens": 1000}
    parts = []
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if line.startswith("data: {"):
                choice = orjson.loads(line[6:])["choices"][0]
                parts.append(choice["delta"].get("content") or "")
    return "".join(parts)


def embed(client: httpx.Client, text: str, model: str = "fake-embedding") -> httpx.Response:
    return client.post("/v1/embeddings", json={"model": model, "input": [text] * 32})


def until(replicas: Callable[[str], int], name: str, wanted: Callable[[int], bool]) -> None:
    deadline = time.monotonic() + FOLLOW_TIMEOUT_S
    while not wanted(number := replicas(name)):
        assert time.monotonic() < deadline, f"{name} still has {number} replicas"
        time.sleep(0.3)


@contextmanager
def load(num_clients: int, ask: Callable[[], object]) -> Iterator[None]:
    """Have clients ask one request after the other; every one has to be answered."""
    is_over = threading.Event()

    def work() -> int:
        num_requests = 0
        while not is_over.is_set():
            ask()
            num_requests += 1
        return num_requests

    with ThreadPoolExecutor(num_clients) as pool:
        clients: list[Future[int]] = [pool.submit(work) for _ in range(num_clients)]
        try:
            yield
        finally:
            is_over.set()
        assert all(client.result() for client in clients)


def store(client: httpx.Client, collection: str) -> None:
    document = {"id": "d", "text": "Golden Crumb sells Nightloaf."}
    body = {"collection": collection, "documents": [document]}
    client.post("/v1/data/index", json=body).raise_for_status()


def erase(client: httpx.Client, collection: str) -> str:
    body = {"collection": collection, "ids": ["d"], "wait_s": 60}
    return client.post("/v1/data/delete", json=body).raise_for_status().json()["status"]


def test_replicas_follow_the_load_and_no_request_is_lost(
    stack: Stack, replicas: Callable[[str], int]
) -> None:
    with stack.client() as client, ThreadPoolExecutor(16) as pool:
        refused = pool.submit(embed, client, "a", "unplaceable")
        store(client, "before")
        goes_up_and_down(client, pool, replicas)
        rests(client, replicas)
        wakes(client, pool, replicas)
        late = refused.result()
        assert late.status_code == 503
        assert int(late.headers["retry-after"]) > 0
        assert late.json()["error"]["code"] == "overloaded"


def goes_up_and_down(
    client: httpx.Client, pool: ThreadPoolExecutor, replicas: Callable[[str], int]
) -> None:
    def ask() -> None:
        assert chat(client, "how are you") == "Echo: how are you"

    with load(60, ask):
        until(replicas, "Generator", lambda number: number == 3)
        long = "a long answer " * 15
        streams = [pool.submit(stream, client, long) for _ in range(12)]
        time.sleep(1)
    until(replicas, "Generator", lambda number: number < 3)
    assert {one.result() for one in streams} == {f"Echo: {long}"}

    with load(12, lambda: embed(client, WORDS).raise_for_status()):
        until(replicas, "Embedder", lambda number: number == 2)
    until(replicas, "Embedder", lambda number: number < 2)


def rests(client: httpx.Client, replicas: Callable[[str], int]) -> None:
    """Nobody asks, so nothing runs; what only looks on does not change that."""
    until(replicas, "Generator", lambda number: number == 0)
    until(replicas, "Embedder", lambda number: number == 0)
    assert erase(client, "before") == "completed"
    for _ in range(4):
        client.get("/v1/health/ready").raise_for_status()
        client.get("/v1/metrics").raise_for_status()
        time.sleep(1)
        assert replicas("Generator") == replicas("Embedder") == 0


def wakes(client: httpx.Client, pool: ThreadPoolExecutor, replicas: Callable[[str], int]) -> None:
    awake = [pool.submit(chat, client, f"wake {n}") for n in range(8)]
    store(client, "after")
    assert {one.result() for one in awake} == {f"Echo: wake {n}" for n in range(8)}
    assert replicas("Generator") >= 1
