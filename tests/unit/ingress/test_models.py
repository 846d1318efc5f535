"""The HTTP border of models that are loaded at run time: what is taken, refused, and shown."""

import dataclasses
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from deployments.errors import Conflict, InsufficientResources, ModelUnavailable, UnreadableModel
from deployments.types import LoadOrder, LoadProgress, ModelSpec, ModelState, SwitchOrder
from tests.unit.ingress.conftest import ADMIN_KEY, Build, in_process
from tests.unit.ingress.fake_graph import FakeGraph

LOAD, UNLOAD, SWITCH, STATUS = (
    f"/v1/models/{name}" for name in ("load", "unload", "switch", "status")
)
SPEC = ModelSpec(name="m", version="1", kind="generation", engine="fake", num_bytes=100)
LOADING = ModelState(spec=SPEC, phase="loading", attempt=1, changed_at=0.0)
READY = dataclasses.replace(LOADING, phase="ready", ready_at=1.5)
FAILED = dataclasses.replace(LOADING, phase="failed", error="the weights are made of cheese")
HALF = dataclasses.replace(LOADING, progress=LoadProgress(50, 100, 2.0))


@pytest.fixture
async def operator(build: Build, graph: FakeGraph) -> AsyncIterator[httpx.AsyncClient]:
    graph.states["m@1"] = [READY]
    async with in_process(build()) as client:
        client.headers["authorization"] = f"Bearer {ADMIN_KEY}"
        yield client


async def test_load_says_the_state_and_the_status(
    operator: httpx.AsyncClient, graph: FakeGraph
) -> None:
    response = await operator.post(LOAD, json={"model_id": "m"})
    assert (response.status_code, response.json()["state"]) == (200, "ready")
    assert response.json()["ready_at"] == "1970-01-01T00:00:01.500000Z"
    graph.states["m@1"] = [LOADING]
    response = await operator.post(LOAD, json={"model_id": "m"})
    assert (response.status_code, response.json()["state"]) == (202, "loading")


@pytest.mark.parametrize(
    ("body", "order"),
    [
        (
            {"model_id": "smollm2-135m-instruct"},
            LoadOrder(
                name="smollm2-135m-instruct", version="", source="embedded:smollm2-135m-instruct"
            ),
        ),
        (
            {"model_id": "m@2", "engine": "fake", "replicas": {"min": 2, "max": 4}},
            LoadOrder(name="m", version="2", engine="fake", min_replicas=2, max_replicas=4),
        ),
        (
            {"model_id": "m", "engine": "fake", "replicas": {"min": 0}},
            LoadOrder(name="m", version="", engine="fake", min_replicas=0, max_replicas=1),
        ),
        (
            {
                "model_id": "m",
                "version": "v1.2",
                "source": "/models/m.gguf",
                "sha256": "0" * 64,
                "kind": "generation",
                "engine": "deepspeed",
                "device": "cuda:1",
                "precision": "bf16",
                "tensor_parallel": 3,
                "options": {"context_length": 128},
            },
            LoadOrder(
                name="m",
                version="v1.2",
                source="/models/m.gguf",
                sha256="0" * 64,
                kind="generation",
                engine="deepspeed",
                device="cuda:1",
                precision="bf16",
                tensor_parallel=3,
                options={"context_length": 128},
            ),
        ),
        (
            {"model_id": "m:a", "adapter": "/a", "replicas": {"min": 1}, "device": "auto"},
            LoadOrder(name="m:a", version="", adapter="/a", base="m"),
        ),
        (
            {"model_id": "m@2:a@3", "adapter": "/a", "sha256": "0" * 64},
            LoadOrder(name="m:a", version="3", adapter="/a", base="m@2", sha256="0" * 64),
        ),
    ],
    ids=["defaults", "replicas", "to-zero", "everything", "adapter", "adapter-of-versions"],
)
async def test_order_is_what_was_said(
    operator: httpx.AsyncClient, graph: FakeGraph, body: dict[str, Any], order: LoadOrder
) -> None:
    graph.states = {f"{order.name}@{order.version or '1'}": [READY]}
    (await operator.post(LOAD, json=body)).raise_for_status()
    assert graph.orders == [order]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "model_id"),
        ({"model_id": ""}, "model_id"),
        ({"model_id": "../../etc/passwd"}, "model_id"),
        ({"model_id": "..", "engine": "fake"}, "model_id"),
        ({"model_id": "/absolute/path"}, "model_id"),
        ({"model_id": "a/b"}, "model_id"),
        ({"model_id": "rag/docs"}, "model_id"),
        ({"model_id": "m@"}, "model_id"),
        ({"model_id": "m@1@2"}, "model_id"),
        ({"model_id": "m\n"}, "model_id"),
        ({"model_id": "m\x00"}, "model_id"),
        ({"model_id": "m;rm -rf"}, "model_id"),
        ({"model_id": "x" * 65}, "model_id"),
        ({"model_id": 7}, "model_id"),
        ({"model_id": "m@1", "version": "2"}, "version"),
        ({"model_id": "m", "version": "../1"}, "version"),
        ({"model_id": "m", "device": "cuda:99;rm"}, "device"),
        ({"model_id": "m", "device": "cuda:-1"}, "device"),
        ({"model_id": "m", "device": "cuda:100"}, "device"),
        ({"model_id": "m", "device": "CUDA"}, "device"),
        ({"model_id": "m", "device": "tpu"}, "device"),
        ({"model_id": "m", "device": ""}, "device"),
        ({"model_id": "m", "device": "cpu\n"}, "device"),
        ({"model_id": "m", "precision": "fp8"}, "precision"),
        ({"model_id": "m", "engine": "os.system"}, "engine"),
        ({"model_id": "m", "kind": "vision"}, "kind"),
        ({"model_id": "m", "replicas": -1}, "replicas"),
        ({"model_id": "m", "replicas": {"min": -1}}, "replicas.min"),
        ({"model_id": "m", "replicas": {"max": 0}}, "replicas.max"),
        ({"model_id": "m", "replicas": {"min": 3, "max": 2}}, "replicas.max"),
        ({"model_id": "m", "replicas": {"min": 1.5}}, "replicas.min"),
        ({"model_id": "m", "replicas": {"min": 100_000}}, "replicas.min"),
        ({"model_id": "m", "tensor_parallel": 0}, "tensor_parallel"),
        ({"model_id": "m", "tensor_parallel": -3}, "tensor_parallel"),
        ({"model_id": "m", "sha256": "abc"}, "sha256"),
        ({"model_id": "m", "adapter": "/a"}, "model_id"),
        ({"model_id": "m:a"}, "adapter"),
        ({"model_id": "m:a:b", "adapter": "/a"}, "model_id"),
        ({"model_id": "m:", "adapter": "/a"}, "model_id"),
        ({"model_id": ":a", "adapter": "/a"}, "model_id"),
        ({"model_id": "m:../a", "adapter": "/a"}, "model_id"),
        ({"model_id": "m:a", "adapter": ""}, "adapter"),
        ({"model_id": "m:a@1", "adapter": "/a", "version": "2"}, "version"),
        ({"model_id": "m:a", "adapter": "/a", "source": "/m"}, "source"),
        ({"model_id": "m:a", "adapter": "/a", "engine": "fake"}, "engine"),
        ({"model_id": "m:a", "adapter": "/a", "kind": "generation"}, "kind"),
        ({"model_id": "m:a", "adapter": "/a", "device": "cpu"}, "device"),
        ({"model_id": "m:a", "adapter": "/a", "precision": "fp32"}, "precision"),
        ({"model_id": "m:a", "adapter": "/a", "replicas": {"min": 2}}, "replicas"),
        ({"model_id": "m:a", "adapter": "/a", "tensor_parallel": 2}, "tensor_parallel"),
        ({"model_id": "m:a", "adapter": "/a", "options": {"x": 1}}, "options"),
        ({"model_id": "m", "source": ""}, "source"),
        ({"model_id": "m", "options": {"a": [1]}}, "options.a"),
        ({"model_id": "m", "options": {"__class__": 1, "A-B": 2}}, None),
        ({"model_id": "m", "trust_remote_code": True}, "trust_remote_code"),
        ({"model_id": "m", "wait": "yes"}, "wait"),
    ],
)
async def test_load_of_anything_else_changes_nothing(
    operator: httpx.AsyncClient, graph: FakeGraph, body: dict[str, Any], param: str | None
) -> None:
    response = await operator.post(LOAD, json=body)
    assert response.status_code == 400
    assert param is None or response.json()["error"]["param"] == param
    assert graph.orders == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (UNLOAD, {}),
        (UNLOAD, {"model_id": "../m"}),
        (UNLOAD, {"model_id": "m", "force": "yes"}),
        (SWITCH, {"alias": "chat"}),
        (SWITCH, {"to": "m@1"}),
        (SWITCH, {"alias": "a/b", "to": "m@1"}),
        (SWITCH, {"alias": "a@1", "to": "m@1"}),
        (SWITCH, {"alias": "rag/docs", "to": "m@1"}),
        (SWITCH, {"alias": "chat", "to": "m@1", "canary_percent": 0}),
        (SWITCH, {"alias": "chat", "to": "m@1", "canary_percent": 101}),
        (SWITCH, {"alias": "chat", "to": "m@1", "canary_percent": 2.5}),
        (SWITCH, {"alias": "chat", "to": "m@1", "canary_percent": -5}),
        (SWITCH, {"alias": "chat", "to": "m@1", "drain_s": -1}),
        (SWITCH, {"alias": "chat", "to": "m@1", "percent": 5}),
    ],
)
async def test_unload_and_switch_of_anything_else_change_nothing(
    operator: httpx.AsyncClient, graph: FakeGraph, path: str, body: dict[str, Any]
) -> None:
    assert (await operator.post(path, json=body)).status_code == 400
    assert graph.orders == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", LOAD, {"model_id": "m"}),
        ("POST", UNLOAD, {"model_id": "m"}),
        ("POST", SWITCH, {"alias": "chat", "to": "m@1"}),
        ("GET", STATUS, None),
    ],
)
async def test_only_an_operators_key_may(
    client: httpx.AsyncClient, graph: FakeGraph, method: str, path: str, body: Any
) -> None:
    response = await client.request(method, path, json=body)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "forbidden")
    assert graph.orders == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Conflict("loaded with other settings"), 409),
        (InsufficientResources("needs more than is free"), 507),
        (UnreadableModel("model.safetensors is damaged"), 422),
        (ModelUnavailable("it is being loaded"), 503),
    ],
)
async def test_refusals_keep_their_status(
    operator: httpx.AsyncClient, graph: FakeGraph, error: Exception, status: int
) -> None:
    graph.error = error
    for path, body in (
        (LOAD, {"model_id": "m"}),
        (UNLOAD, {"model_id": "m"}),
        (SWITCH, {"alias": "chat", "to": "m@1"}),
    ):
        response = await operator.post(path, json=body)
        assert (response.status_code, response.json()["error"]["message"]) == (status, str(error))


async def test_wait_answers_with_the_end_of_a_load(
    operator: httpx.AsyncClient, graph: FakeGraph
) -> None:
    graph.states["m@1"] = [LOADING, HALF, READY]
    response = await operator.post(LOAD, json={"model_id": "m", "wait": True})
    assert (response.status_code, response.json()["state"]) == (200, "ready")
    graph.states["m@1"] = [LOADING, FAILED]
    response = await operator.post(LOAD, json={"model_id": "m", "wait": True})
    assert response.status_code == 502
    assert "made of cheese" in response.json()["error"]["message"]


async def test_wait_ends_with_the_deadline(build: Build, graph: FakeGraph) -> None:
    graph.states["m@1"] = [LOADING]
    async with in_process(build(request_timeout_s=0.5)) as client:
        client.headers["authorization"] = f"Bearer {ADMIN_KEY}"
        response = await client.post(LOAD, json={"model_id": "m", "wait": True})
        assert (response.status_code, response.json()["state"]) == (202, "loading")


@pytest.mark.parametrize(("last", "end"), [(READY, "done"), (FAILED, "error")])
async def test_stream_tells_progress_and_ends_once(
    operator: httpx.AsyncClient, graph: FakeGraph, last: ModelState, end: str
) -> None:
    graph.states["m@1"] = [LOADING, HALF, HALF, last]
    response = await operator.post(LOAD, json={"model_id": "m", "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in response.text.splitlines() if line]
    assert [event["type"] for event in events] == ["progress"] * 3 + [end]
    assert events[1]["model"]["progress"] == {
        "bytes_read": 50,
        "bytes_total": 100,
        "seconds": 2.0,
    }
    if end == "error":
        assert "made of cheese" in events[-1]["error"]["message"]


async def test_switch_waits_for_a_load_where_it_is_asked_to(
    operator: httpx.AsyncClient, graph: FakeGraph
) -> None:
    graph.states["m@1"] = [dataclasses.replace(READY, phase="unloaded"), LOADING, READY]
    body = {"alias": "chat", "to": "m@1", "canary_percent": 10, "drain_s": 5, "wait": True}
    response = await operator.post(SWITCH, json=body)
    assert response.json() == {
        "alias": "chat",
        "object": "model.alias",
        "targets": [{"model": "m@1", "percent": 10}],
    }
    order = SwitchOrder(alias="chat", to="m@1", canary_percent=10, drain_s=5)
    assert graph.orders == [("m@1", True), order]


async def test_switch_to_a_load_that_fails_changes_no_alias(
    operator: httpx.AsyncClient, graph: FakeGraph
) -> None:
    graph.states["m@1"] = [FAILED, LOADING, FAILED]
    response = await operator.post(SWITCH, json={"alias": "chat", "to": "m@1", "wait": True})
    assert response.status_code == 502
    assert graph.orders == [("m@1", True)]


async def test_status_shows_models_aliases_and_machines(operator: httpx.AsyncClient) -> None:
    status = (await operator.get(STATUS)).raise_for_status().json()
    own, loaded = status["models"]
    assert (own["id"], own["state"], own["replicas_wanted"]) == ("fake-model", "configured", 2)
    assert (own["replicas_running"], own["memory_bytes"], own["queued"]) == (2, 200, 4)
    assert (own["tokens_per_s"], own["kv_cache_usage"]) == (7.0, 0.25)
    assert (loaded["id"], loaded["state"], loaded["replicas_running"]) == ("m@1", "ready", 0)
    [alias] = status["aliases"]
    assert [target["percent"] for target in alias["targets"]] == [90, 10]
    [node] = status["nodes"]
    assert (node["cpu"], node["gpus"][0]["utilisation"]) == (0.5, 0.9)


async def test_fallbacks_reach_the_graph(operator: httpx.AsyncClient, graph: FakeGraph) -> None:
    body = {
        "model": "fake-model",
        "messages": [{"role": "user", "content": "x"}],
        "fallbacks": ["second-model"],
    }
    (await operator.post("/v1/chat/completions", json=body)).raise_for_status()
    inference = {"prompt": "x", "model": "fake-model", "fallbacks": ["second-model"]}
    (await operator.post("/v1/inference", json=inference)).raise_for_status()
    completion = {"prompt": "x", "model": "fake-model", "fallbacks": ["second-model"]}
    (await operator.post("/v1/completions", json=completion)).raise_for_status()
    assert [one.fallbacks for one in graph.requests] == [("second-model",)] * 3
    assert [one.model for one in graph.requests] == ["fake-model"] * 3
    for wrong in ([], ["x"] * 9, "second-model", [7]):
        response = await operator.post("/v1/chat/completions", json=body | {"fallbacks": wrong})
        assert response.status_code == 400


async def test_adapter_is_shown_with_its_base(
    operator: httpx.AsyncClient, graph: FakeGraph
) -> None:
    spec = dataclasses.replace(SPEC, name="m:a", adapter="/a", base="m@1")
    graph.states["m:a@1"] = [dataclasses.replace(READY, spec=spec)]
    shown = (await operator.post(LOAD, json={"model_id": "m:a", "adapter": "/a"})).json()
    assert (shown["id"], shown["base"], shown["adapter"]) == ("m:a@1", "m@1", "/a")
