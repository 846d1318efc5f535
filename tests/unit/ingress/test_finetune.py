"""The HTTP border of fine-tuning: what is taken, refused, and shown."""

import base64
import dataclasses
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from deployments.errors import Conflict, InsufficientResources, RateLimited
from deployments.types import CurvePoint, Training, TuningProgress, TuningSpec, TuningState
from tests.unit.ingress.conftest import ADMIN_KEY, Build, in_process
from tests.unit.ingress.fake_graph import FakeGraph

PATH = "/v1/models/finetune"
ID = f"tun_{'0' * 32}"
OTHER = f"tun_{'1' * 32}"
SPEC = TuningSpec(
    name="facts",
    version="2",
    base="embedded:m",
    location="/secret/place",
    training=Training(workers=2, zero_stage=3),
    num_examples=18,
    num_evaluated=2,
    num_tokens=700,
    num_steps=9,
    memory_bytes=5,
    is_merged=True,
)
QUEUED = TuningState(id=ID, spec=SPEC, phase="queued", created_at=0.0)
PROGRESS = TuningProgress(
    step=9,
    seconds=2.5,
    curve=(CurvePoint(1, 3.0), CurvePoint(9, 0.5)),
    loss_before=3.25,
    loss_after=0.75,
)
DONE = dataclasses.replace(
    QUEUED, phase="completed", attempt=2, started_at=1.0, completed_at=3.5, progress=PROGRESS
)
PAIR = {"prompt": "A", "completion": " B"}
ORDER = {"model_id": "facts@2", "base": "embedded:m", "examples": [PAIR]}
FILE = {"filename": "a.jsonl", "content_base64": base64.b64encode(b"x\ny").decode()}


@pytest.fixture
async def operator(build: Build, graph: FakeGraph) -> AsyncIterator[httpx.AsyncClient]:
    graph.tuning_states = [QUEUED]
    async with in_process(build()) as client:
        client.headers["authorization"] = f"Bearer {ADMIN_KEY}"
        yield client


async def test_begun_tuning_is_told_without_paths(operator: httpx.AsyncClient) -> None:
    response = await operator.post(PATH, json=ORDER)
    assert response.status_code == 202
    told = response.json()
    assert (told["id"], told["status"], told["model_id"]) == (ID, "queued", "facts@2")
    assert (told["source"], told["evaluation"]["loss_before"]) == (None, None)
    assert "/secret" not in response.text


async def test_completed_tuning_has_its_source_curve_and_evaluation(
    operator: httpx.AsyncClient, graph: FakeGraph
) -> None:
    graph.tuning_states = [DONE]
    told = (await operator.get(f"{PATH}/{ID}")).raise_for_status().json()
    assert (told["status"], told["source"], told["adapter"]) == (
        "completed",
        "tuned:facts@2",
        "tuned:facts@2/adapter",
    )
    assert told["progress"] == {
        "step": 9,
        "steps": 9,
        "seconds": 2.5,
        "curve": [{"step": 1, "loss": 3.0}, {"step": 9, "loss": 0.5}],
    }
    assert told["evaluation"] == {"num_examples": 2, "loss_before": 3.25, "loss_after": 0.75}
    assert told["completed_at"] == "1970-01-01T00:00:03.500000Z"


async def test_order_is_what_was_said(operator: httpx.AsyncClient, graph: FakeGraph) -> None:
    (await operator.post(PATH, json=ORDER)).raise_for_status()
    body = {
        "model_id": "facts",
        "base": "m@1",
        "file": FILE,
        "evaluation": [PAIR, PAIR],
        "rank": 4,
        "alpha": 8,
        "dropout": 0.5,
        "target_modules": ["q_proj"],
        "epochs": 7,
        "learning_rate": 0.01,
        "batch_size": 3,
        "max_tokens": 64,
        "seed": 9,
        "zero_stage": 3,
        "workers": 2,
        "checkpoint_steps": 5,
        "device": "cpu",
        "merge": True,
    }
    (await operator.post(PATH, json=body)).raise_for_status()
    plain, full = graph.tuning_orders
    assert (plain.name, plain.version, plain.evaluation) == ("facts", "2", b"")
    assert json.loads(plain.examples) == PAIR
    assert plain.training == Training()
    assert (full.version, full.examples, full.device, full.is_merged) == ("1", b"x\ny", "cpu", True)
    assert [json.loads(line) for line in full.evaluation.split(b"\n")] == [PAIR, PAIR]
    assert full.training == Training(
        rank=4,
        alpha=8,
        dropout=0.5,
        targets=("q_proj",),
        epochs=7,
        learning_rate=0.01,
        batch_size=3,
        max_tokens=64,
        seed=9,
        zero_stage=3,
        workers=2,
        checkpoint_steps=5,
    )


async def test_file_comes_in_a_form_as_well(operator: httpx.AsyncClient, graph: FakeGraph) -> None:
    order = json.dumps({"model_id": "facts", "base": "embedded:m"})
    files = {"file": ("a.jsonl", b'{"prompt": "A", "completion": "B"}\n')}
    response = await operator.post(PATH, data={"order": order}, files=files)
    assert response.status_code == 202, response.text
    assert graph.tuning_orders[0].examples == files["file"][1]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"model_id": "../up"}, "model_id"),
        ({"model_id": "a/b"}, "model_id"),
        ({"base": ""}, "base"),
        ({"examples": None}, "examples"),
        ({"examples": []}, "examples"),
        ({"examples": ["text"]}, "examples[0]"),
        ({"file": FILE}, "examples"),
        ({"evaluation": [PAIR], "evaluation_file": FILE}, "evaluation"),
        ({"evaluation_share": 1}, "evaluation_share"),
        ({"evaluation_share": 0}, "evaluation_share"),
        ({"zero_stage": 1}, "zero_stage"),
        ({"workers": 0}, "workers"),
        ({"workers": -1}, "workers"),
        ({"workers": True}, "workers"),
        ({"rank": 0}, "rank"),
        ({"epochs": 0}, "epochs"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"dropout": 1}, "dropout"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_tokens": 1}, "max_tokens"),
        ({"target_modules": ["a b"]}, "target_modules[0]"),
        ({"device": "cuda:99;rm"}, "device"),
        ({"trust_remote_code": True}, "trust_remote_code"),
    ],
)
async def test_bad_order_names_the_field(
    operator: httpx.AsyncClient, graph: FakeGraph, changes: dict[str, Any], param: str
) -> None:
    response = await operator.post(PATH, json=ORDER | changes)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
    assert graph.tuning_orders == []


async def test_file_that_is_no_base64_is_refused(operator: httpx.AsyncClient) -> None:
    body = {"model_id": "facts", "base": "m", "file": FILE | {"content_base64": "?"}}
    response = await operator.post(PATH, json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "file.content_base64")


@pytest.mark.parametrize(
    ("error", "status"),
    [(RateLimited("full"), 429), (Conflict("there"), 409), (InsufficientResources("small"), 507)],
)
async def test_refusals_keep_their_status(
    operator: httpx.AsyncClient, graph: FakeGraph, error: Exception, status: int
) -> None:
    graph.error = error
    assert (await operator.post(PATH, json=ORDER)).status_code == status


async def test_list_pages_and_cancel_says_it_goes_on(
    operator: httpx.AsyncClient, graph: FakeGraph
) -> None:
    graph.tuning_states = [dataclasses.replace(QUEUED, id=OTHER), QUEUED]
    page = (await operator.get(PATH, params={"limit": 1})).json()
    assert ([one["id"] for one in page["data"]], page["has_more"]) == ([OTHER], True)
    page = (await operator.get(PATH, params={"limit": 1, "after": OTHER})).json()
    assert ([one["id"] for one in page["data"]], page["has_more"]) == ([ID], False)
    response = await operator.post(f"{PATH}/{ID}/cancel")
    assert (response.status_code, response.json()["status"]) == (202, "cancelling")


@pytest.mark.parametrize("id_", ["tun_1", "../../etc", f"era_{'0' * 32}"])
async def test_ids_that_are_none_are_refused(operator: httpx.AsyncClient, id_: str) -> None:
    assert (await operator.get(f"{PATH}/{id_}")).status_code in (400, 404)


async def test_unknown_tuning_is_not_found(operator: httpx.AsyncClient) -> None:
    assert (await operator.get(f"{PATH}/{OTHER}")).status_code == 404
    assert (await operator.post(f"{PATH}/{OTHER}/cancel")).status_code == 404


async def test_key_of_a_tenant_may_nothing_of_this(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    graph.tuning_states = [QUEUED]
    for method, path in (
        ("POST", PATH),
        ("GET", PATH),
        ("GET", f"{PATH}/{ID}"),
        ("POST", f"{PATH}/{ID}/cancel"),
    ):
        response = await client.request(method, path, json=ORDER if method == "POST" else None)
        assert response.status_code == 403, path
    assert graph.tuning_orders == []


async def test_deleted_tuning_is_not_found_any_more(operator: httpx.AsyncClient) -> None:
    gone = (await operator.delete(f"{PATH}/{ID}")).raise_for_status().json()
    assert gone == {"id": ID, "deleted": True}
    for method in ("DELETE", "GET"):
        assert (await operator.request(method, f"{PATH}/{ID}")).status_code == 404
