"""Models are loaded, switched and unloaded while replicas, controller and ingress are killed."""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.chaos.test_store_kills import processes
from tests.faults import IS_COMPLETE
from tests.stack import ROOT, Stack, running

NUM_KILLS = 50 if IS_COMPLETE else 3
AGREE_S = 120.0
"""Bound of the test; how long it took is printed."""

VICTIMS = ("ServeReplica:model-", "ServeController", "ServeReplica:ragserve:Ingress")
pytestmark = pytest.mark.timeout(7200)
Status = dict[str, Any]


@pytest.fixture(scope="module")
def pair() -> Iterator[Stack]:
    """Yield an installation with two ingresses."""
    with running(ROOT / "tests/chaos/two_replicas.yaml") as stack:
        yield stack


def order(client: httpx.Client, path: str, body: dict[str, Any]) -> None:
    """Ask once; whoever should answer may be the one that is killed."""
    with contextlib.suppress(httpx.HTTPError):
        client.post(f"/v1/models/{path}", json=body)


def load(client: httpx.Client, model: str) -> None:
    order(client, "load", {"model_id": model, "engine": "fake"})


def answers(client: httpx.Client, model: str) -> int:
    messages = [{"role": "user", "content": "hi"}]
    return client.post(
        "/v1/chat/completions", json={"model": model, "messages": messages}
    ).status_code


def disagreement(client: httpx.Client) -> str:
    """Return what differs between the registry and what runs; "" if nothing."""
    try:
        status = client.get("/v1/models/status").raise_for_status().json()
        models = {one["id"]: one for one in status["models"] if one["state"] != "configured"}
        for name, one in models.items():
            if one["state"] not in ("ready", "unloaded"):
                return f"{name} is {one['state']}"
            if one["replicas_running"] != (one["state"] == "ready"):
                return f"{name} is {one['state']} and has {one['replicas_running']} replicas"
            if answers(client, name) != (200 if one["state"] == "ready" else 404):
                return f"{name} is {one['state']} and answers otherwise"
        targets = [target["model"] for alias in status["aliases"] for target in alias["targets"]]
        lost = [target for target in targets if models[target]["state"] != "ready"]
        return f"an alias names {lost}" if lost else ""
    except httpx.HTTPError as error:
        return type(error).__name__


def operations(client: httpx.Client, turn: int) -> list[Callable[[], None]]:
    """Return what an operator may do in this turn; the alias `chat` names a version of it."""
    new, old = f"m@{turn}", f"m@{turn - 1}"
    to_new = {"alias": "chat", "to": new, "wait": True, "drain_s": 0}
    return [
        lambda: load(client, new),
        lambda: order(client, "switch", to_new),
        lambda: order(client, "unload", {"model_id": old, "force": False}),
    ]


def test_registry_and_what_runs_agree_after_a_kill_at_any_instant(pair: Stack) -> None:
    rng = random.Random("models")
    took: list[float] = []
    with pair.client(60) as client:
        load(client, "m@0")
        agreed(client)
        order(client, "switch", {"alias": "chat", "to": "m@0"})
        for turn in range(1, NUM_KILLS + 1):
            load(client, f"m@{turn}")
            if rng.random() < 0.5:
                agreed(client)
            work = threading.Thread(target=rng.choice(operations(client, turn)))
            work.start()
            time.sleep(rng.uniform(0, 1.5))
            victims = processes(pair, rng.choice(VICTIMS)) or processes(pair, VICTIMS[1])
            rng.choice(victims).kill()
            work.join()
            took.append(agreed(client))
            tidy(client, turn)
    print(f"\n{NUM_KILLS} kills, agreed after at most {max(took):.1f} s: {took}")


def agreed(client: httpx.Client) -> float:
    """Wait until the registry and what runs agree; return the seconds."""
    started = time.monotonic()
    while what := disagreement(client):
        assert time.monotonic() - started < AGREE_S, what
        time.sleep(0.3)
    return time.monotonic() - started


def tidy(client: httpx.Client, turn: int) -> None:
    """Have the alias name the newest version, and the others unloaded."""
    body = {"alias": "chat", "to": f"m@{turn}", "wait": True, "drain_s": 0}
    client.post("/v1/models/switch", json=body, timeout=AGREE_S).raise_for_status()
    for old in range(turn):
        order(client, "unload", {"model_id": f"m@{old}", "wait": True})
    agreed(client)
    assert answers(client, "chat") == 200
