import json
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from cluster.client import Client
from cluster.errors import OperatorError
from cluster.models import followed, models, options_of, replicas_of
from tests.unit.cluster.test_client import Server

STATE = {"id": "m@1", "state": "ready", "progress": None}
HALF = {"id": "m@1", "state": "loading", "progress": {"bytes_read": 5, "bytes_total": 10}}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    running = Server()
    monkeypatch.setattr(Client, "from_environment", lambda: running.client)
    yield running
    running.close()


def test_load_sends_what_was_asked_for_and_waits(server: Server) -> None:
    events = f'data: {{"type":"done","model":{_json(STATE)}}}\n\n'
    server.replies = [(200, {"content-type": "text/event-stream"}, events)]
    arguments = ["load", "m@1", "--source", "/models/m", "--replicas", "1:3"]
    arguments += ["--option", "context_length=128", "--precision", "bf16"]
    done = CliRunner().invoke(models, arguments)
    assert (done.exit_code, "m@1: ready" in done.output) == (0, True)
    assert server.requests[0]["body"] == {
        "model_id": "m@1",
        "device": "auto",
        "precision": "bf16",
        "replicas": {"min": 1, "max": 3},
        "options": {"context_length": 128},
        "stream": True,
        "source": "/models/m",
    }


def test_load_sends_an_adapters_folder(server: Server) -> None:
    events = f'data: {{"type":"done","model":{_json(STATE)}}}\n\n'
    server.replies = [(200, {"content-type": "text/event-stream"}, events)]
    done = CliRunner().invoke(models, ["load", "m:a", "--adapter", "/adapters/a"])
    assert done.exit_code == 0
    body = server.requests[0]["body"]
    assert (body["model_id"], body["adapter"]) == ("m:a", "/adapters/a")


def test_switch_and_unload_send_what_was_asked_for(server: Server) -> None:
    alias = {"alias": "chat", "targets": [{"model": "m@1", "percent": 90}]}
    server.replies = [(200, {}, _json(alias)), (200, {}, _json(STATE | {"state": "unloaded"}))]
    done = CliRunner().invoke(models, ["switch", "chat", "m@2", "--percent", "10"])
    assert "chat: 90 % m@1" in done.output
    done = CliRunner().invoke(models, ["unload", "m@1", "--force"])
    assert "m@1: unloaded" in done.output
    assert [one["body"] for one in server.requests] == [
        {"alias": "chat", "to": "m@2", "canary_percent": 10, "wait": False},
        {"model_id": "m@1", "force": True, "wait": True},
    ]


def test_progress_ends_with_the_state_or_the_error() -> None:
    progress: list[dict[str, Any]] = [{"type": "progress", "model": HALF}]
    assert followed([*progress, {"type": "done", "model": STATE}]) == STATE
    with pytest.raises(OperatorError, match="cheese"):
        followed([*progress, {"type": "error", "error": {"message": "made of cheese"}}])
    with pytest.raises(OperatorError, match="without saying"):
        followed(progress)


def test_replicas_and_options_are_read() -> None:
    assert replicas_of("2") == {"min": 2, "max": 2}
    assert replicas_of("0") == {"min": 0, "max": 1}
    assert replicas_of("1:4") == {"min": 1, "max": 4}
    assert options_of(["a=1", "b=x=y", "c=true"]) == {"a": 1, "b": "x=y", "c": True}
    for wrong in ("", "many", "1:x"):
        with pytest.raises(OperatorError):
            replicas_of(wrong)
    with pytest.raises(OperatorError, match="no value"):
        options_of(["a"])


def _json(value: object) -> str:
    return json.dumps(value)
