"""A hub's model is loaded on a real Ray: downloaded in the background, and then as any other."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.integration.test_model_kinds import complete
from tests.integration.test_models import unload
from tests.stack import ROOT, Stack, running
from tests.unit.engines.generation.transformers.tiny import save_llama
from tests.unit.engines.inspection.hub_server import Hub, serving

LOAD = {
    "model_id": "words@1",
    "source": "hub:org/name",
    "options": {"context_length": 256, "kv_cache_tokens": 1024},
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    path = tmp_path_factory.mktemp("offered")
    save_llama(path)
    with serving(Hub()) as hub:
        hub.files = {one.name: one.read_bytes() for one in path.iterdir()}
        yield hub


@pytest.fixture(scope="module")
def stack(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    config = yaml.safe_load((ROOT / "configs/fake.yaml").read_text())
    config["applications"][0]["args"]["models"] = {"allow_hub": True}
    path = Path(tmp_path_factory.mktemp("config")) / "hub.yaml"
    path.write_text(yaml.safe_dump(config))
    with running(path, HF_ENDPOINT=hub.url) as stack:
        yield stack


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx.Client]:
    with stack.client(timeout_s=300) as client:
        yield client


def state_of(client: httpx.Client) -> dict[str, Any]:
    models = client.get("/v1/models/status").raise_for_status().json()["models"]
    return dict(next(one for one in models if one["id"] == "words@1"))


def wait(client: httpx.Client, state: str) -> None:
    deadline = time.monotonic() + 120
    while (found := state_of(client))["state"] != state:
        assert found["state"] in ("loading", "unloading"), found
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


@pytest.mark.timeout(600)
def test_model_is_downloaded_in_the_background(client: httpx.Client, hub: Hub) -> None:
    hub.gate.clear()
    hub.break_after = len(hub.files["model.safetensors"]) - 1
    begun = client.post("/v1/models/load", json=LOAD)
    assert (begun.status_code, begun.json()["state"]) == (202, "loading")
    again = client.post("/v1/models/load", json=LOAD)
    assert (again.status_code, again.json()["state"]) == (202, "loading")
    deadline = time.monotonic() + 60
    while not ((progress := state_of(client)["progress"]) and progress["bytes_read"]):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert progress["bytes_read"] < progress["bytes_total"]
    unload(client, "words@1").raise_for_status()
    wait(client, "unloaded")
    hub.gate.set()

    loaded = client.post("/v1/models/load", json={**LOAD, "wait": True})
    assert (loaded.status_code, loaded.json()["state"]) == (200, "ready"), loaded.text
    assert complete(client, "words")
    unload(client, "words@1").raise_for_status()
    wait(client, "unloaded")
    hub.status = 503
    loaded = client.post("/v1/models/load", json={**LOAD, "wait": True})
    assert (loaded.status_code, loaded.json()["state"]) == (200, "ready"), loaded.text
    hub.status = 200


def test_what_the_hub_does_not_give_is_refused_at_once(client: httpx.Client, hub: Hub) -> None:
    hub.status, hub.error_code = 401, "GatedRepo"
    for source, said in (("hub:org/other", "accepted its terms"), ("hub:../x", "a model of a hub")):
        refused = client.post("/v1/models/load", json={"model_id": "no@1", "source": source})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "source")
        assert said in refused.json()["error"]["message"]
    hub.status, hub.error_code = 200, ""
