"""Models that are loaded, switched and unloaded at run time, on a real Ray with fake engines."""

import concurrent.futures
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from tests.stack import ROOT, Stack, running
from tests.unit.engines.inspection.material import LLAMA, folder

OPTIONS = {"fake_token_delay_s": 0.001}


def load(client: httpx.Client, model: str, **body: Any) -> dict[str, Any]:
    sent = {"model_id": model, "engine": "fake", "wait": True, **body}
    return client.post("/v1/models/load", json=sent).raise_for_status().json()


def switch(client: httpx.Client, alias: str, to: str, **body: Any) -> httpx.Response:
    return client.post("/v1/models/switch", json={"alias": alias, "to": to, **body})


def unload(client: httpx.Client, model: str, **body: Any) -> httpx.Response:
    sent = {"model_id": model, "wait": True, **body}
    return client.post("/v1/models/unload", json=sent)


def ask(client: httpx.Client, model: str, **body: Any) -> httpx.Response:
    messages = [{"role": "user", "content": "hello"}]
    return client.post("/v1/chat/completions", json={"model": model, "messages": messages, **body})


def text_of(response: httpx.Response) -> str:
    return str(response.raise_for_status().json()["choices"][0]["message"]["content"])


def streamed(client: httpx.Client, model: str, content: str = "hello") -> str:
    body = {"model": model, "messages": [{"role": "user", "content": content}], "stream": True}
    text = ""
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if line.startswith("data: {"):
                text += json.loads(line[6:])["choices"][0]["delta"].get("content", "")
    return text


def state_of(client: httpx.Client, model: str) -> dict[str, Any]:
    models = client.get("/v1/models/status").raise_for_status().json()["models"]
    return next(one for one in models if one["id"] == model)


@pytest.fixture(scope="module")
def models_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, models_root: Path) -> Iterator[Stack]:
    """Run the fake profile, with a folder that models may be loaded from."""
    config = yaml.safe_load((ROOT / "configs/fake.yaml").read_text())
    config["applications"][0]["args"]["models"] = {"roots": [str(models_root)]}
    path = tmp_path_factory.mktemp("config") / "models.yaml"
    path.write_text(yaml.safe_dump(config))
    with running(path) as stack:
        yield stack


@pytest.fixture
def broken(models_root: Path) -> str:
    """Return a folder whose files are whole, but no model."""
    return str(folder(models_root / "broken", LLAMA))


@pytest.fixture
def clean(client: httpx.Client) -> Iterator[None]:
    """Unload whatever a test has left."""
    yield
    for one in client.get("/v1/models/status").json()["models"]:
        if one["state"] not in ("configured", "unloaded"):
            unload(client, one["id"], force=True).raise_for_status()


@pytest.mark.usefixtures("clean")
def test_model_is_loaded_answers_is_switched_to_and_goes(client: httpx.Client) -> None:
    assert ask(client, "small@1").status_code == 404
    state = load(client, "small@1", options=OPTIONS)
    assert (state["id"], state["state"], state["error"]) == ("small@1", "ready", None)
    assert text_of(ask(client, "small@1")) == "Echo: hello"
    assert streamed(client, "small@1") == "Echo: hello"
    assert text_of(ask(client, "small")) == "Echo: hello"
    assert "small@1" in [one["id"] for one in client.get("/v1/models").json()["data"]]

    alias = switch(client, "chat", "small@1").raise_for_status().json()
    assert alias["targets"] == [{"model": "small@1", "percent": 100}]
    assert streamed(client, "chat") == "Echo: hello"
    assert unload(client, "small@1").status_code == 409

    [replica] = state_of(client, "small@1")["running"]
    switch(client, "chat", "fake", drain_s=0).raise_for_status()
    assert text_of(ask(client, "chat")) == "Echo: hello"
    deadline = time.monotonic() + 60
    while state_of(client, "small@1")["state"] != "unloaded":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert ask(client, "small@1").status_code == 404
    assert not psutil.pid_exists(replica["pid"])


@pytest.mark.usefixtures("clean")
def test_loads_at_once_are_one_and_again_changes_nothing(client: httpx.Client) -> None:
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        states = list(pool.map(lambda _: load(client, "once", options=OPTIONS), range(4)))
    assert {(one["state"], one["ready_at"]) for one in states} == {("ready", states[0]["ready_at"])}
    assert load(client, "once", options=OPTIONS)["ready_at"] == states[0]["ready_at"]
    body = {"model_id": "once", "engine": "fake", "options": {"context_length": 128}}
    other = client.post("/v1/models/load", json=body)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "conflict")


@pytest.mark.usefixtures("clean")
def test_failed_load_is_told_and_leaves_the_old_version_serving(
    client: httpx.Client, broken: str
) -> None:
    load(client, "kept@1", options=OPTIONS)
    switch(client, "stable", "kept@1").raise_for_status()
    body = {"model_id": "kept@2", "source": broken, "wait": True, "kind": "generation"}
    failed = client.post("/v1/models/load", json=body, timeout=240)
    assert failed.status_code == 502, failed.text
    assert "kept@2 could not be loaded" in failed.json()["error"]["message"]
    assert broken not in failed.text
    assert state_of(client, "kept@2")["state"] == "failed"
    assert switch(client, "stable", "kept@2").status_code == 409
    assert text_of(ask(client, "stable")) == "Echo: hello"


@pytest.mark.usefixtures("clean")
def test_what_does_not_fit_is_refused_at_once(client: httpx.Client) -> None:
    body = {"model_id": "huge", "engine": "fake", "replicas": {"min": 200}, "wait": True}
    refused = client.post("/v1/models/load", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (
        507,
        "insufficient_resources",
    )
    assert "free are" in refused.json()["error"]["message"]
    assert ask(client, "huge").status_code == 404


@pytest.mark.usefixtures("clean")
def test_switch_under_load_loses_nothing_and_mixes_nothing(client: httpx.Client) -> None:
    """The versions differ in how they end: the context of one cuts the answer."""
    slow = {"fake_token_delay_s": 0.01}
    load(client, "v@1", options=slow)
    load(client, "v@2", options=slow | {"default_max_tokens": 20})
    switch(client, "live", "v@1").raise_for_status()
    whole, cut = "Echo: " + "x" * 40, "Echo: " + "x" * 14
    seen: list[str] = []
    is_over = threading.Event()

    def read(_: int) -> None:
        while not is_over.is_set():
            seen.append(streamed(client, "live", "x" * 40))

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        readers = [pool.submit(read, number) for number in range(12)]
        time.sleep(2)
        switch(client, "live", "v@2", canary_percent=30).raise_for_status()
        time.sleep(3)
        canary = len(seen)
        switch(client, "live", "v@2", drain_s=0).raise_for_status()
        deadline = time.monotonic() + 60
        while state_of(client, "v@1")["state"] != "unloaded":
            assert time.monotonic() < deadline
            time.sleep(0.3)
        switched = len(seen)
        time.sleep(2)
        is_over.set()
        for reader in readers:
            reader.result()
    assert set(seen) == {whole, cut}
    assert cut in seen[:canary]
    assert set(seen[switched + 12 :]) == {cut}


@pytest.mark.usefixtures("clean")
def test_embedding_model_makes_collections_and_rerankers_rerank(client: httpx.Client) -> None:
    load(client, "wide@1", kind="embedding", options={"fake_dim": 40})
    body = {"model": "wide", "input": "hello"}
    vectors = client.post("/v1/embeddings", json=body).raise_for_status().json()
    assert len(vectors["data"][0]["embedding"]) == 40
    made = client.post(
        "/v1/data/collections", json={"name": "wide-docs", "embedding_model": "wide"}
    )
    assert made.raise_for_status().json()["embedding_model"] == "wide@1"
    documents = [{"id": "a", "text": "the ferry to Skarro"}, {"id": "b", "text": "bread"}]
    body = {"collection": "wide-docs", "documents": documents}
    client.post("/v1/data/index", json=body).raise_for_status()
    query = {"collection": "wide-docs", "query": "the ferry to Skarro", "mode": "dense"}
    found = client.post("/v1/data/search", json=query).raise_for_status().json()["results"]
    assert found[0]["document_id"] == "a"
    erased = client.post("/v1/data/delete", json={"collection": "wide-docs", "ids": ["b"]})
    assert erased.raise_for_status().json()["status"] == "completed", "loaded models forgot, too"
    assert unload(client, "wide@1").status_code == 409
    unload(client, "wide@1", force=True).raise_for_status()
    refused = client.post("/v1/data/search", json=query)
    assert (refused.status_code, refused.json()["error"]["param"]) == (409, "collection")
    client.delete("/v1/data/collections/wide-docs").raise_for_status()

    load(client, "judge@1", kind="reranking")
    body = {"model": "judge@1", "query": "ferry", "documents": ["bread", "ferry"]}
    ranked = client.post("/v1/rerank", json=body).raise_for_status().json()
    assert (ranked["results"][0]["index"], ranked["model"]) == (1, "judge@1")


@pytest.mark.usefixtures("clean")
def test_fallback_answers_for_a_model_that_is_not_there(client: httpx.Client) -> None:
    load(client, "spare@1", options=OPTIONS)
    answer = ask(client, "gone@1", fallbacks=["also-gone", "spare@1"])
    assert text_of(answer) == "Echo: hello"
    assert answer.json()["model"] == "spare@1"
    assert ask(client, "gone@1", fallbacks=["also-gone"]).status_code == 404


@pytest.mark.usefixtures("clean")
def test_progress_comes_as_a_stream(client: httpx.Client) -> None:
    body = {"model_id": "told", "engine": "fake", "stream": True}
    with client.stream("POST", "/v1/models/load", json=body) as response:
        events = [json.loads(line[6:]) for line in response.iter_lines() if line[:5] == "data:"]
    assert [one["type"] for one in events][-1] == "done"
    assert events[-1]["model"]["state"] == "ready"
    assert {one["type"] for one in events[:-1]} == {"progress"}


def told_by(client: httpx.Client, model: str) -> list[dict[str, Any]]:
    """Return what a model's replicas say of themselves, once one has."""
    deadline = time.monotonic() + 60
    while not (found := state_of(client, model)["running"]):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    return found


@pytest.mark.usefixtures("clean")
def test_status_has_replicas_and_machines(client: httpx.Client) -> None:
    load(client, "seen@1", options=OPTIONS)
    told_by(client, "seen@1")
    status = client.get("/v1/models/status").raise_for_status().json()
    one = next(model for model in status["models"] if model["id"] == "seen@1")
    assert (one["replicas_wanted"], one["replicas_running"]) == (1, 1)
    assert one["memory_bytes"] > 20 << 20
    assert one["running"][0]["host"] == status["nodes"][0]["host"]
    own = next(model for model in status["models"] if model["id"] == "fake")
    assert (own["state"], own["replicas_wanted"], own["replicas_running"]) == ("configured", 2, 2)
    assert status["nodes"][0]["memory_total_bytes"] > 1 << 30


def test_killed_replica_comes_back_and_the_registry_agrees(
    client: httpx.Client, clean: None
) -> None:
    load(client, "tough@1", options=OPTIONS)
    [replica] = told_by(client, "tough@1")
    psutil.Process(replica["pid"]).kill()
    deadline = time.monotonic() + 60
    while True:
        running = state_of(client, "tough@1")["running"]
        if running and running[0]["pid"] != replica["pid"]:
            break
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert text_of(ask(client, "tough@1")) == "Echo: hello"
    assert state_of(client, "tough@1")["state"] == "ready"


def test_alias_of_a_configured_reranker_is_that_one(client: httpx.Client) -> None:
    def scores(model: str) -> list[float]:
        body = {"model": model, "query": "ferry to Skarro", "documents": ["bread", "the ferry"]}
        ranked = client.post("/v1/rerank", json=body).raise_for_status().json()["results"]
        return [one["relevance_score"] for one in ranked]

    for alias, to in (("fused", "late-fusion"), ("judged", "fake-reranker")):
        switch(client, alias, to).raise_for_status()
        assert scores(alias) == scores(to)
    assert scores("fused") != scores("judged")
