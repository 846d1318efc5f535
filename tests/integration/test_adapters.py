"""Adapters over loaded and configured models, on a real Ray with fake engines, and a restart."""

import concurrent.futures
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.integration.installation import Installation
from tests.integration.test_models import ask, load, state_of, streamed, switch, text_of, unload
from tests.integration.test_models_restart import connected, wait_for_model
from tests.stack import ROOT
from tests.unit.engines.inspection.material import adapter


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation.new(tmp_path / "state")
    try:
        yield made
    finally:
        made.clean_up()


@pytest.fixture
def config(tmp_path: Path) -> str:
    """Return the fake profile, with a folder that adapters may be loaded from."""
    for name in ("pirate", "poet", "own"):
        adapter(tmp_path / "adapters" / name)
    adapter(tmp_path / "adapters" / "dora", {"use_dora": True})
    found = yaml.safe_load((ROOT / "configs/fake.yaml").read_text())
    found["applications"][0]["args"]["models"] = {"roots": [str(tmp_path / "adapters")]}
    path = tmp_path / "adapters.yaml"
    path.write_text(yaml.safe_dump(found))
    return str(path)


def attach(client: httpx.Client, model: str, folder: Path) -> httpx.Response:
    body = {"model_id": model, "adapter": str(folder), "wait": True}
    return client.post("/v1/models/load", json=body)


@pytest.mark.timeout(600)
def test_adapters_are_loaded_named_kept_and_unloaded(
    installation: Installation, config: str, tmp_path: Path
) -> None:
    folders = tmp_path / "adapters"
    assert installation.run("up", config, "--detach").returncode == 0
    with connected(installation) as client:
        early = attach(client, "small:pirate", folders / "pirate")
        assert (early.status_code, early.json()["error"]["param"]) == (404, "model_id")
        load(client, "small@1")
        state = attach(client, "small:pirate", folders / "pirate").raise_for_status().json()
        assert (state["id"], state["base"], state["state"]) == (
            "small:pirate@1",
            "small@1",
            "ready",
        )
        again = attach(client, "small:pirate", folders / "pirate").raise_for_status().json()
        assert again["ready_at"] == state["ready_at"]
        attach(client, "small@1:poet", folders / "poet").raise_for_status()
        attach(client, "fake:own", folders / "own").raise_for_status()
        refused = attach(client, "small:dora", folders / "dora")
        assert refused.status_code == 422
        assert "merge" in refused.json()["error"]["message"]
        outside = attach(client, "small:out", tmp_path)
        assert (outside.status_code, outside.json()["error"]["param"]) == (400, "adapter")

        said = answers(client)
        names = {"small@1", "small:pirate", "small:pirate@1", "small:poet", "fake:own"}
        deadline = time.monotonic() + 10  # each ingress learns of a change within its own poll
        while not names <= {one["id"] for one in client.get("/v1/models").json()["data"]}:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert said == {
            "small": "Echo: hello",
            "small:pirate": "small:pirate@1#1 Echo: hello",
            "small@1:poet": "small:poet@1#1 Echo: hello",
            "fake": "Echo: hello",
            "fake:own": "fake:own@1#1 Echo: hello",
        }
        assert streamed(client, "small:pirate") == said["small:pirate"]
        missing = ask(client, "small:nobody")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")
        switch(client, "chat", "small:pirate@1").raise_for_status()
        assert text_of(ask(client, "chat")) == said["small:pirate"]

    assert installation.run("down").returncode == 0
    assert installation.run("up", config, "--detach").returncode == 0
    with connected(installation) as client:
        for model in ("small:pirate@1", "small:poet@1", "fake:own@1"):
            wait_for_model(client, model, "ready")
        assert answers(client) == said
        assert text_of(ask(client, "chat")) == said["small:pirate"]

        assert unload(client, "small@1").status_code == 409
        unload(client, "small:poet").raise_for_status()
        assert state_of(client, "small:poet@1")["state"] == "unloaded"
        assert ask(client, "small:poet").status_code == 404
        again = attach(client, "small:poet", folders / "pirate").raise_for_status().json()
        assert text_of(ask(client, "small:poet")) == "small:poet@1#2 Echo: hello"
        unload(client, "small@1", force=True).raise_for_status()
        wait_for_model(client, "small:pirate@1", "unloaded")
        for model in ("small", "small:pirate", "small:poet", "chat"):
            assert ask(client, model).status_code == 404
        assert text_of(ask(client, "fake:own")) == said["fake:own"]


def answers(client: httpx.Client) -> dict[str, str]:
    """Return what models with adapters and without say, all asked at once."""
    models = ["small", "small:pirate", "small@1:poet", "fake", "fake:own"]
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        said = list(pool.map(lambda model: text_of(ask(client, model)), models * 3))
    assert said[:5] == said[5:10] == said[10:]
    return dict(zip(models, said[:5], strict=True))
