"""After `down && up`, and after a kill of everything, what was loaded is loaded again."""

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from cluster.processes import survivors
from tests.integration.installation import Installation
from tests.integration.test_models import ask, load, switch, text_of
from tests.stack import ROOT

FAKE = str(ROOT / "configs/fake.yaml")
AGREE_S = 120.0


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation.new(tmp_path / "state")
    try:
        yield made
    finally:
        made.clean_up()


def connected(installation: Installation) -> httpx.Client:
    key = installation.state.admin_key.read_text().strip()
    headers = {"authorization": f"Bearer {key}"}
    return httpx.Client(base_url=installation.url, headers=headers, timeout=60)


def registry(client: httpx.Client) -> tuple[dict[str, str], list[dict[str, object]]]:
    status = client.get("/v1/models/status").raise_for_status().json()
    phases = {one["id"]: one["state"] for one in status["models"] if one["state"] != "configured"}
    return phases, status["aliases"]


def wait_for(client: httpx.Client, expected: tuple[object, object]) -> None:
    deadline = time.monotonic() + AGREE_S
    while True:
        try:
            found = registry(client)
        except httpx.HTTPError:
            found = None
        if found == expected:
            return
        assert time.monotonic() < deadline, found
        time.sleep(0.5)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("is_killed", [False, True], ids=["down", "sigkill"])
def test_loaded_set_aliases_and_weights_are_as_before(
    installation: Installation, is_killed: bool
) -> None:
    assert installation.run("up", FAKE, "--detach").returncode == 0
    with connected(installation) as client:
        for version in ("1", "2"):
            load(client, f"m@{version}")
        client.post("/v1/models/unload", json={"model_id": "m@2"}).raise_for_status()
        load(client, "other@1")
        switch(client, "chat", "m@1").raise_for_status()
        switch(client, "chat", "other@1", canary_percent=25).raise_for_status()
        before = {"m@1": "ready", "m@2": "unloaded", "other@1": "ready"}
        wait_for(client, (before, registry(client)[1]))
        expected = registry(client)
    if is_killed:
        for process in survivors(installation.state.installation):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    assert installation.run("down").returncode == 0
    assert installation.run("up", FAKE, "--detach").returncode == 0
    with connected(installation) as client:
        wait_for(client, expected)
        assert text_of(ask(client, "m@1")) == "Echo: hello"
        assert text_of(ask(client, "chat")) == "Echo: hello"
        assert ask(client, "m@2").status_code == 404


@pytest.mark.timeout(600)
def test_kills_during_loads_and_switches_are_made_good(installation: Installation) -> None:
    """Ingress and controller die while a model is loaded, switched to and unloaded."""
    assert installation.run("up", FAKE, "--detach").returncode == 0
    names = ("ServeController", "Ingress")
    with connected(installation) as client:
        load(client, "base@1")
        switch(client, "chat", "base@1").raise_for_status()
        for round_number, name in enumerate(names * 2):
            model = f"m@{round_number}"
            body = {"model_id": model, "engine": "fake"}
            client.post("/v1/models/load", json=body).raise_for_status()
            time.sleep(0.3 * round_number)
            kill_actor(installation, name)
            wait_for_model(client, model, "ready")
        wait_for_model(client, "base@1", "ready")
        body = {"model_id": "m@0"}
        client.post("/v1/models/unload", json=body).raise_for_status()
        kill_actor(installation, "Ingress")
        wait_for_model(client, "m@0", "unloaded")
        assert text_of(ask(client, "chat")) == "Echo: hello"


def kill_actor(installation: Installation, name: str) -> None:
    for process in survivors(installation.state.installation):
        try:
            if name in " ".join(process.cmdline()):
                process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            pass


def wait_for_model(client: httpx.Client, model: str, phase: str) -> None:
    deadline = time.monotonic() + AGREE_S
    found = None
    while found != phase:
        assert time.monotonic() < deadline, found
        time.sleep(0.5)
        try:
            found = registry(client)[0].get(model)
        except httpx.HTTPError:
            found = None
