import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cluster import finetune as module
from cluster.client import Client
from cluster.models import models
from tests.unit.cluster.test_client import Server

ID = f"tun_{'0' * 32}"


def state(status: str, step: int = 0, **changes: Any) -> str:
    progress = {"step": step, "steps": 4, "seconds": 1.0, "curve": [{"step": 1, "loss": 2.5}]}
    held = {"num_examples": 1, "loss_before": 3.0, "loss_after": 0.5}
    told = {
        "id": ID,
        "model_id": "m@1",
        "status": status,
        "error": None,
        "source": None,
        "adapter": None,
    }
    return json.dumps(told | {"progress": progress, "evaluation": held} | changes)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    running = Server()
    monkeypatch.setattr(Client, "from_environment", lambda: running.client)
    monkeypatch.setattr(module, "POLL_S", 0.0)
    yield running
    running.close()


def test_finetune_sends_the_file_and_follows_to_the_end(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "facts.jsonl"
    file.write_bytes(b"{}\n")
    server.replies = [
        (202, {}, state("queued")),
        (200, {}, state("running", 2)),
        (200, {}, state("completed", 4, source="tuned:m@1", adapter="tuned:m@1/adapter")),
    ]
    arguments = ["finetune", str(file), "--base", "embedded:x", "--name", "m@1", "--epochs", "7"]
    done = CliRunner().invoke(models, [*arguments, "--merge"])
    assert done.exit_code == 0, done.output
    assert "held-back loss 3.000 before, 0.500 after; tuned:m@1" in done.output
    body = server.requests[0]["body"]
    assert base64.b64decode(body["file"]["content_base64"]) == b"{}\n"
    assert (body["model_id"], body["base"], body["epochs"], body["merge"]) == (
        "m@1",
        "embedded:x",
        7,
        True,
    )


def test_failed_tuning_is_an_error(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "facts.jsonl"
    file.write_bytes(b"{}\n")
    server.replies = [(202, {}, state("queued")), (200, {}, state("failed", error="no cheese"))]
    done = CliRunner().invoke(models, ["finetune", str(file), "--base", "b", "--name", "m"])
    assert done.exit_code != 0
    assert "no cheese" in str(done.exception)


def test_list_and_cancel_show_tunings(server: Server) -> None:
    server.replies = [(200, {}, json.dumps({"data": [json.loads(state("running", 2))]}))]
    done = CliRunner().invoke(models, ["tunings", "--json"])
    assert json.loads(done.output)["data"][0]["progress"]["step"] == 2
    server.replies = [(202, {}, state("cancelling")), (200, {}, state("cancelled"))]
    done = CliRunner().invoke(models, ["cancel-tuning", ID])
    assert f"{ID}: cancelled" in done.output


def test_deleted_tuning_is_told(server: Server) -> None:
    server.replies = [(200, {}, json.dumps({"id": ID, "deleted": True}))]
    done = CliRunner().invoke(models, ["delete-tuning", ID])
    assert f"{ID}: deleted" in done.output
