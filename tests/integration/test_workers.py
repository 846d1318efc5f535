"""Workers come and go: from zero and back, and with a rollout, and no task is lost by it."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from cluster.run_record import running_record
from cluster.serve_api import ServeApi
from cluster.state import StateFolder
from tests.integration.test_tasks import ended, submit
from tests.stack import ROOT, Stack, running

FOLLOW_TIMEOUT_S = 60.0
LONG = "a long answer " * 10
"""Seven seconds at the fake engine's pace below."""

SCALING = {
    "min_replicas": 0,
    "initial_replicas": 0,
    "max_replicas": 2,
    "target_ongoing_requests": 64,
    "upscale_delay_s": 0,
    "downscale_delay_s": 2,
    "downscale_to_zero_delay_s": 2,
    "metrics_interval_s": 0.5,
    "look_back_period_s": 1,
    "policy": {
        "policy_function": "cluster.autoscaling:TaskScaling",
        "policy_kwargs": {"tasks": 4},
    },
}


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "configs/fake.yaml").read_text())
    [application] = config["applications"]
    application["args"]["generator"]["fake_token_delay_s"] = 0.05
    application["args"]["ingress"]["tasks"] = {"max_running": 4}
    worker = next(one for one in application["deployments"] if one["name"] == "Worker")
    del worker["num_replicas"]
    worker |= {"autoscaling_config": SCALING, "graceful_shutdown_timeout_s": 40}
    return config


@pytest.fixture(scope="module")
def scaled(config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    path: Path = tmp_path_factory.mktemp("workers") / "workers.yaml"
    path.write_text(yaml.safe_dump(config))
    with running(path) as stack:
        yield stack


@pytest.fixture(scope="module")
def api(scaled: Stack) -> ServeApi:
    state = StateFolder(scaled.state_dir)
    return ServeApi(running_record(state).dashboard_url, state.ray_token.read_text().strip())


def workers(api: ServeApi) -> int:
    [application] = api.applications()
    return next(one.running for one in application.deployments if one.name == "Worker")


def until_workers(api: ServeApi, wanted: int) -> None:
    deadline = time.monotonic() + FOLLOW_TIMEOUT_S
    while (number := workers(api)) != wanted:
        assert time.monotonic() < deadline, f"there are {number} workers"
        time.sleep(0.3)


def test_workers_come_for_tasks_and_go_without(api: ServeApi, scaled: Stack) -> None:
    with scaled.client() as client:
        until_workers(api, 0)
        task = submit(client, LONG, max_tokens=500)
        seen = set()
        while (state := status(client, task)) in ("PENDING", "RUNNING"):
            seen.add((state, workers(api)))
            time.sleep(0.2)
        assert state == "COMPLETED"
        assert ("RUNNING", 0) not in seen, "the one that did it was not taken away"
        many = [submit(client, LONG, max_tokens=500) for _ in range(8)]
        until_workers(api, 2)
        assert {ended(client, one)["status"] for one in many} == {"COMPLETED"}
        until_workers(api, 0)


def test_a_rollout_lets_running_tasks_end(
    api: ServeApi, scaled: Stack, config: dict[str, Any]
) -> None:
    with scaled.client() as client:
        task = submit(client, LONG, max_tokens=500)
        until_status(client, task, "RUNNING")
        before = pids(api)
        application = config["applications"][0]
        application["args"]["ingress"]["tasks"]["max_running"] = 5  # every worker is a new one
        api.deploy(config)
        state = ended(client, task)
        assert (state["status"], state["attempts"]) == ("COMPLETED", 1), state
        assert ended(client, submit(client, "after"))["status"] == "COMPLETED"
        assert not before & pids(api)


def status(client: httpx.Client, task: str) -> str:
    return str(client.get(f"/v1/tasks/{task}").raise_for_status().json()["status"])


def until_status(client: httpx.Client, task: str, wanted: str) -> None:
    deadline = time.monotonic() + FOLLOW_TIMEOUT_S
    while status(client, task) != wanted:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def pids(api: ServeApi) -> set[int]:
    [application] = api.applications()
    return {pid for one in application.deployments if one.name == "Worker" for pid in one.pids}
