"""`ragserve tasks` against a server that answers as told."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from cluster.client import Client
from cluster.tasks import tasks
from tests.unit.cluster.test_client import Server

JSON = {"content-type": "application/json"}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    running = Server()
    monkeypatch.setattr(Client, "from_environment", lambda: running.client)
    yield running
    running.close()


def task(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "task_id": f"task_{number}",
        "object": "task",
        "status": "FAILED",
        "path": "/v1/inference",
        "attempts": 2,
        "progress": {"done": 1, "total": 3, "failed": 0},
        "error": {"code": "engine_failed"},
        "created_at": "2026-01-01T00:00:00Z",
        **changes,
    }


def page(*found: dict[str, Any], more: bool = False) -> tuple[int, dict[str, str], str]:
    return 200, JSON, json.dumps({"object": "list", "data": found, "has_more": more})


def one(state: dict[str, Any], status: int = 200) -> tuple[int, dict[str, str], str]:
    return status, JSON, json.dumps(state)


def asked(server: Server) -> list[tuple[str, str]]:
    return [(request["method"], request["path"]) for request in server.requests]


def test_list_shows_tasks_page_after_page(server: Server) -> None:
    server.replies = [page(task(3), task(2), more=True), page(task(1, error=None))]
    done = CliRunner().invoke(tasks, ["--limit", "150", "--status", "FAILED"])
    assert done.exit_code == 0, done.output
    assert all(f"task_{number}" in done.output for number in (1, 2, 3))
    assert asked(server) == [
        ("GET", "/v1/tasks?limit=100&status=FAILED"),
        ("GET", "/v1/tasks?limit=100&after=task_2&status=FAILED"),
    ]


def test_list_takes_no_more_than_asked_for(server: Server) -> None:
    server.replies = [page(task(3), task(2), more=True)]
    done = CliRunner().invoke(tasks, ["--limit", "2", "--json"])
    assert [found["task_id"] for found in json.loads(done.output)] == ["task_3", "task_2"]
    assert asked(server) == [("GET", "/v1/tasks?limit=2")]


def test_show_waits_and_leaves_out_what_is_not_there(server: Server) -> None:
    server.replies = [one(task(1, status="COMPLETED", error=None, output={"output": "hi"}))]
    done = CliRunner().invoke(tasks, ["show", "task_1", "--wait-s", "5"])
    assert done.exit_code == 0, done.output
    assert "output: {'output': 'hi'}" in done.output
    assert "error" not in done.output
    assert asked(server) == [("GET", "/v1/tasks/task_1?wait_s=5.0")]


def test_cancel_says_how_the_task_is(server: Server) -> None:
    server.replies = [one(task(1, status="RUNNING"), 202)]
    done = CliRunner().invoke(tasks, ["cancel", "task_1"])
    assert done.output == "task_1: RUNNING\n"
    assert asked(server) == [("DELETE", "/v1/tasks/task_1")]


def test_retry_repeats_one(server: Server) -> None:
    server.replies = [one(task(1, status="PENDING"), 202)]
    done = CliRunner().invoke(tasks, ["retry", "task_1"])
    assert (done.exit_code, done.output) == (0, "task_1: PENDING\n")
    assert asked(server) == [("POST", "/v1/tasks/task_1/retry")]


def test_retry_repeats_all_that_failed_and_names_those_it_cannot(server: Server) -> None:
    refused = json.dumps({"error": {"message": "what the task was asked is erased"}})
    server.replies = [
        page(task(2), task(1)),
        (409, JSON, refused),
        one(task(1, status="PENDING"), 202),
    ]
    done = CliRunner().invoke(tasks, ["retry", "--failed"])
    assert "task_1: PENDING" in done.output
    assert "task_2: what the task was asked is erased" in str(done.exception)
    assert asked(server)[0] == ("GET", "/v1/tasks?limit=100&status=FAILED")


@pytest.mark.parametrize("arguments", [["retry"], ["retry", "task_1", "--failed"]])
def test_retry_wants_one_or_all(server: Server, arguments: list[str]) -> None:
    assert CliRunner().invoke(tasks, arguments).exit_code == 1
    assert not server.requests


@pytest.mark.parametrize("command", ["show", "cancel", "retry"])
def test_help_has_examples(command: str) -> None:
    assert f"ragserve tasks {command}" in CliRunner().invoke(tasks, [command, "--help"]).output
