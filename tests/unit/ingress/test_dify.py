"""`POST /dify/retrieval`: what Dify sends, and what it needs to get."""

import logging
from typing import Any

import httpx
import pytest

from deployments.errors import EngineFailed, StoreUnavailable
from deployments.types import AnyOf, Condition, Document
from tests.unit.ingress.fake_graph import FakeGraph

SETTING = {"top_k": 2, "score_threshold": 0.0}
ASK: dict[str, Any] = {"knowledge_id": "docs", "query": "ferry", "retrieval_setting": SETTING}


@pytest.fixture(autouse=True)
def docs(graph: FakeGraph) -> None:
    graph.stored["docs"] = {
        "a": Document(id="a", text="the ferry", title="Trips", metadata={"year": 2026}),
        "b": Document(id="b", text="ferry"),
    }


async def ask(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await client.post("/dify/retrieval", json={**ASK, **fields})


def condition(operator: str | None, value: Any = "x", name: Any = "year") -> dict[str, Any]:
    return {"name": name, "comparison_operator": operator, "value": value}


async def test_retrieval_returns_records_best_first(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    response = await ask(client)
    assert response.status_code == 200
    assert response.json() == {
        "records": [
            {
                "content": "ferry",
                "score": 1.0,
                "title": "b",
                "metadata": {"document_id": "b", "chunk_id": "b:0", "start": 0, "end": 5},
            },
            {
                "content": "the ferry",
                "score": 0.5,
                "title": "Trips",
                "metadata": {
                    "year": 2026,
                    "document_id": "a",
                    "chunk_id": "a:0",
                    "start": 0,
                    "end": 9,
                },
            },
        ]
    }
    assert (graph.searches[0].top_k, graph.searches[0].mode) == (2, "hybrid")
    assert graph.searches[0].filter is None


@pytest.mark.parametrize(("threshold", "num_records"), [(0, 2), (0.5, 2), (0.51, 1), (1.0, 1)])
async def test_retrieval_leaves_out_what_is_below_the_threshold(
    client: httpx.AsyncClient, threshold: float, num_records: int
) -> None:
    response = await ask(client, retrieval_setting={"top_k": 5, "score_threshold": threshold})
    assert len(response.json()["records"]) == num_records


@pytest.mark.parametrize(
    "fields",
    [
        {"retrieval_setting": {"top_k": None, "score_threshold": None}},
        {"retrieval_setting": {}},
        {"retrieval_setting": None},
        {"metadata_condition": None},
        {"metadata_condition": {}},
        {"metadata_condition": {"logical_operator": None, "conditions": None}},
        {"metadata_condition": {"logical_operator": "and", "conditions": []}},
        {"metadata_condition": {"conditions": [condition(None), condition("is", None)]}},
        {"a_member": "of another version"},
    ],
)
async def test_retrieval_tolerates_what_dify_leaves_unsaid(
    client: httpx.AsyncClient, graph: FakeGraph, fields: dict[str, Any]
) -> None:
    response = await ask(client, **fields)
    assert (response.status_code, len(response.json()["records"])) == (200, 2)
    assert graph.searches[0].filter is None


async def test_retrieval_hands_the_filter_to_the_graph(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    conditions = [condition("≥", 2025), condition("contains", "sea", "topic")]
    await ask(client, metadata_condition={"logical_operator": "or", "conditions": conditions})
    assert graph.searches[0].filter == AnyOf(
        (Condition("year", "gte", 2025), Condition("topic", "contains", "sea"))
    )


@pytest.mark.parametrize(
    "content", [b"", b" ", b"{}", b"[]", b"{", b"null"], ids=["nothing", *"sbacn"]
)
async def test_registration_probe_is_no_404_403_or_502(
    client: httpx.AsyncClient, content: bytes
) -> None:
    response = await client.post("/dify/retrieval", content=content)
    assert response.status_code == 400
    assert response.json()["error_code"] == 400
    assert set(response.json()) == {"error_code", "error_msg"}


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, 1001),
        ("rk-test", 1001),
        ("Basic abc", 1001),
        ("Bearer ", 1001),
        ("Bearer wrong", 1002),
    ],
)
async def test_bad_key_is_403_with_the_code_that_dify_knows(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, header: str | None, code: int
) -> None:
    client.headers.pop("authorization")
    headers = {"authorization": header} if header else {}
    for content in (b"", b"{}"):
        response = await client.post("/dify/retrieval", content=content, headers=headers)
        assert (response.status_code, response.json()["error_code"]) == (403, code)
        assert "www-authenticate" not in response.headers
        assert response.headers["content-type"] == "application/json"
    assert (await client.post("/v1/data/search", headers=headers)).status_code == 401


@pytest.mark.parametrize("name", ["nope", "NO/SUCH", "../x"])
async def test_unknown_knowledge_is_2001(client: httpx.AsyncClient, name: str) -> None:
    response = await ask(client, knowledge_id=name)
    assert (response.status_code, response.json()["error_code"]) == (404, 2001)


@pytest.mark.parametrize(
    "fields",
    [
        {"query": ""},
        {"query": None},
        {"knowledge_id": ""},
        {"retrieval_setting": {"top_k": 0, "score_threshold": 0}},
        {"retrieval_setting": {"top_k": 5, "score_threshold": 2}},
        {"metadata_condition": {"logical_operator": "xor"}},
        {"metadata_condition": {"conditions": [condition("like")]}},
        {"metadata_condition": {"conditions": [condition("is", ["a", "b"])]}},
        {"metadata_condition": {"conditions": [condition("before", 1e300)]}},
        {"metadata_condition": {"conditions": [condition("is")] * 65}},
        {"metadata_condition": {"conditions": [condition("is", "a", "x\x00")]}},
    ],
)
async def test_retrieval_refuses_what_cannot_be_meant(
    client: httpx.AsyncClient, fields: dict[str, Any]
) -> None:
    response = await ask(client, **fields)
    assert (response.status_code, response.json()["error_code"]) == (400, 400)


@pytest.mark.parametrize(
    ("error", "status"),
    [(StoreUnavailable("no database"), 503), (EngineFailed("lost"), 502), (ValueError("x"), 500)],
)
async def test_failure_is_logged_since_dify_hides_it(
    client: httpx.AsyncClient,
    graph: FakeGraph,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    status: int,
) -> None:
    graph.error = error
    with caplog.at_level(logging.WARNING, "ray.serve"):
        if isinstance(error, ValueError):
            client._transport.raise_app_exceptions = False  # type: ignore[attr-defined]
        response = await ask(client)
    assert (response.status_code, response.json()["error_code"]) == (status, status)
    [record] = [one for one in caplog.records if "of Dify" in one.getMessage()]
    assert record.levelno == logging.ERROR
    assert response.headers["x-request-id"] in record.getMessage()
    assert "ferry" not in record.getMessage()


async def test_health_says_what_dify_would_hide(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    well = await client.get("/dify/health", params={"knowledge_id": "docs"})
    assert (well.status_code, well.json()) == (200, {"status": "ok", "num_records": 2})
    for params, status in (({"knowledge_id": "nope"}, 404), ({"knowledge_id": ""}, 400), ({}, 400)):
        response = await client.get("/dify/health", params=params)
        assert (response.status_code, "error_code" in response.json()) == (status, True)
    graph.error = StoreUnavailable("no database")
    ill = await client.get("/dify/health", params={"knowledge_id": "docs"})
    assert (ill.status_code, ill.json()["error_msg"]) == (503, "no database")


async def test_wrong_methods_and_paths_have_difys_form(client: httpx.AsyncClient) -> None:
    assert (await client.get("/dify/retrieval")).json()["error_code"] == 405
    assert (await client.post("/dify/other")).json()["error_code"] == 404
