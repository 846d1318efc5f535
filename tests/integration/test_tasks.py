"""Tasks on a real cluster: submitted over HTTP, told of by each kind of broker, done by workers."""

import time
from collections.abc import Iterator
from datetime import datetime

import httpx
import pytest

from deployments.ingress.tasks.crew import UNTOLD_S
from tests.servers.rabbit_server import running_rabbit
from tests.servers.redis_server import running_redis
from tests.stack import ROOT, Stack, running


@pytest.fixture(scope="module", params=["embedded", "rabbit", "redis"])
def told(request: pytest.FixtureRequest) -> Iterator[Stack]:
    config = ROOT / "configs/fake.yaml"
    if request.param == "embedded":
        with running(config) as stack:
            yield stack
    elif request.param == "rabbit":
        with running_rabbit() as server, running(config, RAGSERVE_BROKER_URL=server.url) as stack:
            yield stack
    else:
        with running_redis() as server, running(config, RAGSERVE_BROKER_URL=server.url) as stack:
            yield stack


def submit(client: httpx.Client, text: str, **options: object) -> str:
    body = {"model": "fake", "prompt": text, **options}
    answer = client.post("/v1/inference/async", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["task_id"])


def ended(client: httpx.Client, task: str, timeout_s: float = 60) -> dict:
    deadline = time.monotonic() + timeout_s
    while True:
        state: dict = client.get(f"/v1/tasks/{task}").raise_for_status().json()
        if state["status"] not in ("PENDING", "RUNNING"):
            return state
        assert time.monotonic() < deadline, state
        time.sleep(0.05)


def waited_s(task: dict) -> float:
    begun, made = (datetime.fromisoformat(task[name]) for name in ("started_at", "created_at"))
    return (begun - made).total_seconds()


def test_tasks_are_done(told: Stack) -> None:
    with told.client() as client:
        first = ended(client, submit(client, "hello"))
        assert first["status"] == "COMPLETED", first
        tasks = [submit(client, f"word {number}") for number in range(20)]
        ends = [ended(client, task) for task in tasks]
        assert {end["status"] for end in ends} == {"COMPLETED"}
        assert max(map(waited_s, ends)) < UNTOLD_S, "they were told of, not found by looking"
