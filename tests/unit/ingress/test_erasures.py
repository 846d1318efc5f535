from typing import Any

import httpx
import pytest

from deployments.ingress.schemas.erasures import MAX_IDS
from deployments.types import Condition, Document, ErasureScope
from tests.unit.ingress.fake_graph import FakeGraph

URL = "/v1/data/delete"


@pytest.fixture(autouse=True)
def docs(graph: FakeGraph) -> None:
    graph.stored["docs"] = {"a": Document(id="a", text="x")}


async def test_receipt_says_where_and_when(client: httpx.AsyncClient, graph: FakeGraph) -> None:
    response = await client.post(URL, json={"collection": "docs", "ids": ["a"]})
    receipt = response.json()
    assert (response.status_code, receipt["status"]) == (200, "completed")
    assert (receipt["num_documents"], receipt["num_chunks"]) == (2, 5)
    assert {place["place"] for place in receipt["places"]} == {
        "database",
        "indexes",
        "snapshots",
        "caches",
        "tasks",
    }
    assert all(place["clean_at"] for place in receipt["places"])
    again = await client.get(f"/v1/data/erasures/{receipt['id']}")
    assert (again.status_code, again.json()) == (200, receipt)


async def test_work_that_is_left_is_202(client: httpx.AsyncClient, graph: FakeGraph) -> None:
    graph.is_erased = False
    response = await client.post(URL, json={"collection": "docs", "all": True, "wait_s": 0})
    assert (response.status_code, response.json()["status"]) == (202, "running")
    assert response.json()["completed_at"] is None
    path = f"/v1/data/erasures/{response.json()['id']}"
    assert (await client.get(path)).status_code == 202


@pytest.mark.parametrize(
    ("body", "scope"),
    [
        (
            {"collection": "docs", "ids": ["a", "b"]},
            {"collection": "docs", "document_ids": ("a", "b")},
        ),
        (
            {"collection": "docs", "filter": {"field": "n", "op": "=", "value": 1}},
            {"collection": "docs", "filter": Condition("n", "eq", 1)},
        ),
        ({"collection": "docs", "all": True}, {"collection": "docs"}),
        ({"subject": "ann"}, {"subject": "ann"}),
        ({"collection": "docs", "subject": "ann"}, {"collection": "docs", "subject": "ann"}),
    ],
    ids=["ids", "filter", "all", "subject", "subject-of-one"],
)
async def test_scope_is_what_was_said(
    client: httpx.AsyncClient, graph: FakeGraph, body: dict[str, Any], scope: dict[str, Any]
) -> None:
    (await client.post(URL, json=body | {"wait_s": 3})).raise_for_status()
    assert graph.scopes == [(ErasureScope(tenant="default", **scope), 3)]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"collection": "docs"},
        {"ids": ["a"]},
        {"all": True},
        {"collection": "docs", "ids": ["a"], "all": True},
        {"collection": "docs", "filter": {}, "ids": None},
        {"collection": "docs", "all": False},
        {"collection": "docs", "ids": []},
        {"collection": "docs", "ids": ["../x"]},
        {"collection": "docs", "ids": ["a"] * (MAX_IDS + 1)},
        {"collection": "docs", "subject": ""},
        {"collection": "docs", "subject": "a\x00"},
        {"collection": "docs", "all": True, "wait_s": -1},
        {"collection": "docs", "ids": ["a"], "everything": True},
    ],
)
async def test_anything_else_erases_nothing(
    client: httpx.AsyncClient, graph: FakeGraph, body: dict[str, Any]
) -> None:
    assert (await client.post(URL, json=body)).status_code == 400
    assert graph.scopes == []


async def test_missing_collection_and_receipt_are_404(client: httpx.AsyncClient) -> None:
    response = await client.post(URL, json={"collection": "none", "all": True})
    assert response.status_code == 404
    unknown = await client.get("/v1/data/erasures/era_" + "f" * 32)
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "not_found")
