"""What is wrong with a load is told before anything runs, and nothing of it stays behind."""

import concurrent.futures
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.chaos.test_store_kills import processes
from tests.integration.test_models import ask, load, state_of, switch, text_of, unload
from tests.stack import ROOT, Stack, running
from tests.unit.engines.inspection.material import LLAMA, folder, gguf


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `models`, which may be loaded from, and others, which may not."""
    path = tmp_path_factory.mktemp("faults")
    for name in ("models/whole", "secret"):
        folder(path / name, LLAMA)
    return path


@pytest.fixture(scope="module")
def stack(base: Path) -> Iterator[Stack]:
    config = yaml.safe_load((ROOT / "configs/fake.yaml").read_text())
    args = {"roots": [str(base / "models")], "evict": True, "replica_cpus": 4}
    config["applications"][0]["args"]["models"] = args
    path = base / "models.yaml"
    path.write_text(yaml.safe_dump(config))
    with running(path) as stack:
        yield stack


def known(client: httpx.Client) -> dict[str, str]:
    models = client.get("/v1/models/status").raise_for_status().json()["models"]
    return {one["id"]: one["state"] for one in models if one["state"] != "configured"}


def wait_until(what: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture
def clean(client: httpx.Client) -> Iterator[None]:
    yield
    for model in sorted(known(client)):
        unload(client, model, force=True).raise_for_status()


def damaged(path: Path, name: str) -> dict[str, Any]:
    """Put a fault into a model's folder; return what else the load has to say."""
    weights = path / "model.safetensors"
    if name == "cut":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif name == "header":
        weights.write_bytes((100_000).to_bytes(8, "little") + b"[" * 100_000)
    elif name == "tokenizer":
        (path / "tokenizer.json").unlink()
    elif name == "pickles":
        weights.rename(path / "pytorch_model.bin")
    elif name == "auto_map":
        (path / "config.json").write_text(json.dumps(LLAMA | {"auto_map": {"AutoModel": "x.Y"}}))
    elif name == "other-bytes":
        return {"sha256": "0" * 64}
    elif name.startswith("gguf"):
        file = gguf(path / "m.gguf")
        if name == "gguf-cut":
            file.write_bytes(file.read_bytes()[:-40])
            return {"source": str(file)}
        return {"source": str(file), "sha256": "0" * 64}
    return {}


FAULTS = {
    "cut": "model.safetensors is damaged",
    "header": "model.safetensors is damaged",
    "tokenizer": "no tokenizer",
    "pickles": "pickles",
    "auto_map": "code of the model's own",
    "other-bytes": "SHA-256",
    "gguf-cut": "m.gguf is damaged",
    "gguf-other-bytes": "SHA-256",
}


def test_bad_files_are_refused_and_leave_nothing(
    client: httpx.Client, stack: Stack, base: Path
) -> None:
    before = known(client)
    for name, words in FAULTS.items():
        path = folder(base / "models" / name, LLAMA)
        body = {"model_id": f"bad-{name}", "source": str(path)} | damaged(path, name)
        refused = client.post("/v1/models/load", json=body)
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (422, "unreadable_model"), refused.text
        assert words in error["message"]
        assert str(base) not in refused.text
    assert known(client) == before
    assert not processes(stack, "ServeReplica:model-")


def test_sources_out_of_the_roots_are_refused_alike(client: httpx.Client, base: Path) -> None:
    models = base / "models"
    (models / "link").symlink_to(base / "secret")
    linked = folder(models / "linked", LLAMA)
    (linked / "model.safetensors").unlink()
    (linked / "model.safetensors").symlink_to(base / "secret/model.safetensors")
    before = known(client)
    messages = []
    for source in (
        str(base / "secret"),
        str(base / "nothing"),
        f"{models}/../secret",
        str(models / "link"),
        str(linked),
        "models/whole",
        "../models/whole",
        f"{models}/{'x' * 300}",
        f"{models}/whole\x00",
        "hub:org/name",
    ):
        refused = client.post("/v1/models/load", json={"model_id": "out", "source": source})
        error = refused.json()["error"]
        assert (refused.status_code, error["param"]) == (400, "source"), refused.text
        assert str(base) not in refused.text
        messages.append(error["message"])
    assert messages[0] == messages[1], "nothing is said of what is there"
    assert known(client) == before


def test_bad_bodies_and_unknown_ids_change_nothing(client: httpx.Client) -> None:
    before = known(client)
    for body, param in (
        ({"model_id": "../../etc/passwd"}, "model_id"),
        ({"model_id": "/etc/passwd"}, "model_id"),
        ({"model_id": "m", "device": "cuda:99;rm"}, "device"),
        ({"model_id": "m", "device": "cuda:99"}, "device"),
        ({"model_id": "m", "replicas": {"min": -1}}, "replicas.min"),
        ({"model_id": "m", "replicas": {"min": 3, "max": 2}}, "replicas.max"),
        ({"model_id": "m", "precision": "int4"}, "precision"),
    ):
        refused = client.post("/v1/models/load", json=body | {"engine": "fake"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    assert unload(client, "nobody").status_code == 404
    assert switch(client, "chat", "nobody@1").status_code == 404
    assert switch(client, "chat", "nobody@1", wait=True).status_code == 404
    assert ask(client, "nobody").status_code == 404
    assert known(client) == before


@pytest.mark.usefixtures("clean")
def test_model_that_is_loading_or_going_is_left_in_peace(
    client: httpx.Client, stack: Stack
) -> None:
    body = {"model_id": "busy@1", "engine": "fake"}
    assert client.post("/v1/models/load", json=body).status_code == 202
    early = switch(client, "chat", "busy@1")
    assert (early.status_code, "is loading" in early.text) == (409, True)
    assert ask(client, "busy@1").status_code == 503
    assert unload(client, "busy@1", wait=False).status_code == 202
    again = client.post("/v1/models/load", json=body)
    assert (again.status_code, "being unloaded" in again.text) == (409, True)
    unload(client, "busy@1").raise_for_status()
    assert known(client)["busy@1"] == "unloaded"
    assert state_of(client, "busy@1")["replicas_wanted"] in (None, 0)
    wait_until(lambda: not processes(stack, "ServeReplica:model-busy"))
    load(client, "busy@1")
    assert text_of(ask(client, "busy@1")) == "Echo: hello"


@pytest.mark.usefixtures("clean")
def test_database_that_is_lost_in_mid_load_is_waited_for(
    client: httpx.Client, stack: Stack
) -> None:
    body = {"model_id": "late@1", "engine": "fake"}
    assert client.post("/v1/models/load", json=body).status_code == 202
    path = stack.state_dir / "ragserve.db"
    other = sqlite3.connect(path, isolation_level=None, timeout=30)
    try:
        other.execute("BEGIN IMMEDIATE")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            refused = pool.submit(
                client.post, "/v1/models/load", json={"model_id": "lost@1", "engine": "fake"}
            )
            assert refused.result().status_code == 503
        assert known(client)["late@1"] == "loading"
    finally:
        other.close()
    wait_until(lambda: known(client)["late@1"] == "ready")
    assert "lost@1" not in known(client)
    load(client, "lost@1")
    assert len(processes(stack, "ServeReplica:model-late")) == 1
    assert text_of(ask(client, "late@1")) == "Echo: hello"


@pytest.mark.usefixtures("clean")
def test_only_what_nothing_names_goes_for_room_and_only_where_that_helps(
    client: httpx.Client,
) -> None:
    """Ray has room for three models of 4 logical CPUs beside the configuration's."""
    names = ("named@1", "spare@1", "later@1")
    for name in names:
        load(client, name)
    switch(client, "chat", "named@1").raise_for_status()
    body = {"model_id": "huge@1", "engine": "fake", "replicas": {"min": 4}}
    refused = client.post("/v1/models/load", json=body)
    assert (refused.status_code, "free are" in refused.json()["error"]["message"]) == (507, True)
    assert known(client) | dict.fromkeys(names, "ready") == known(client), "it would not help"
    load(client, "new@1")
    expected = {"named@1": "ready", "spare@1": "unloaded", "later@1": "ready", "new@1": "ready"}
    assert known(client) | expected == known(client)
    assert text_of(ask(client, "chat")) == "Echo: hello"
