"""`/v1/rerank`, `/v2/rerank`, `/rerank`: Cohere's, Jina's and TEI's forms."""

import math
from typing import Any

import httpx
import pytest

from deployments.errors import ContextTooLong, EngineFailed, Overloaded
from tests.unit.ingress.fake_graph import FakeGraph

PATHS = ["/v1/rerank", "/v2/rerank", "/rerank"]
DOCUMENTS = ["bread", "the ferry", "ferry"]
ASK = {"query": "ferry", "documents": DOCUMENTS}
TEI = {"query": "ferry", "texts": DOCUMENTS}


async def post(client: httpx.AsyncClient, body: Any, path: str = "/rerank") -> httpx.Response:
    return await client.post(path, json=body)


@pytest.mark.parametrize("path", PATHS)
async def test_rerank_gives_every_document_a_row_best_first(
    client: httpx.AsyncClient, graph: FakeGraph, path: str
) -> None:
    response = await post(client, ASK, path)
    body = response.json()
    assert body["results"] == [
        {"index": 2, "relevance_score": 1.0},
        {"index": 1, "relevance_score": 0.5},
        {"index": 0, "relevance_score": 0.0},
    ]
    assert set(body) == {"id", "model", "results", "meta", "usage"}
    assert body["model"] == "fake-reranker"
    assert body["id"].startswith("rerank-")
    assert body["meta"]["api_version"] == {"version": "2" if "v2" in path else "1"}
    assert body["usage"] == {"prompt_tokens": 9, "total_tokens": 9}
    assert graph.reranks == [("ferry", DOCUMENTS, None)]


@pytest.mark.parametrize(("top_n", "num_rows"), [(1, 1), (2, 2), (3, 3), (99, 3), (None, 3)])
async def test_rerank_gives_exactly_top_n_rows(
    client: httpx.AsyncClient, top_n: int | None, num_rows: int
) -> None:
    results = (await post(client, {**ASK, "top_n": top_n})).json()["results"]
    assert [row["index"] for row in results] == [2, 1, 0][:num_rows]


async def test_rerank_keeps_the_order_of_equal_scores(client: httpx.AsyncClient) -> None:
    body = {"query": "x", "documents": ["a", "b", "c"]}
    results = (await post(client, body)).json()["results"]
    assert [row["index"] for row in results] == [0, 1, 2]


async def test_rerank_returns_documents_only_when_asked(client: httpx.AsyncClient) -> None:
    documents = ["ferry", {"text": "the ferry", "title": "T", "n": 1}]
    body = {"query": "ferry", "documents": documents, "return_documents": True}
    rows = (await post(client, body)).json()["results"]
    assert [row["document"] for row in rows] == [{"text": "ferry"}, documents[1]]
    for flag in (False, None):
        rows = (await post(client, {**body, "return_documents": flag})).json()["results"]
        assert all("document" not in row for row in rows)


async def test_rerank_takes_the_model_that_is_named(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    named = await post(client, {**ASK, "model": "late-fusion"})
    assert named.json()["model"] == "late-fusion"
    assert graph.reranks[-1][2] == "late-fusion"
    unknown = await post(client, {**ASK, "model": "rerank-v3.5"})
    assert unknown.status_code == 404
    assert unknown.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"query": " "}, "query"),
        ({"query": None}, "query"),
        ({"documents": []}, "documents"),
        ({"documents": ["a"] * 1001}, "documents"),
        ({"documents": ["a", 1]}, "documents[1]"),
        ({"documents": [{"title": "x"}]}, "documents[0].text"),
        ({"documents": "ferry"}, "documents"),
        ({"top_n": 0}, "top_n"),
        ({"top_n": "1"}, "top_n"),
        ({"return_documents": 1}, "return_documents"),
        ({"rank_fields": ["text"]}, "rank_fields"),
        ({"max_tokens_per_doc": 512}, "max_tokens_per_doc"),
        ({"max_chunks_per_doc": 10}, "max_chunks_per_doc"),
        ({"truncation": True}, "truncation"),
    ],
)
async def test_rerank_refuses_by_name(
    client: httpx.AsyncClient, fields: dict[str, object], param: str
) -> None:
    response = await post(client, {**ASK, **fields})
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def test_rerank_bounds_the_characters_of_a_call(client: httpx.AsyncClient) -> None:
    response = await post(client, {"query": "x", "documents": ["a" * 900_000] * 5})
    assert (response.status_code, response.json()["error"]["param"]) == (413, "documents")
    response = await post(client, {"query": "x", "texts": ["a" * 900_000] * 5})
    assert (response.status_code, response.json()["error_type"]) == (413, "Validation")


async def test_rerank_of_no_body_or_another_one_is_refused(client: httpx.AsyncClient) -> None:
    for content in (b"", b"[]", b"{}", b'{"query": "x"}', b"1"):
        response = await client.post("/rerank", content=content)
        assert response.status_code == 400
        assert response.json()["error"]["code"] == "invalid_request"


async def test_tei_gets_a_bare_array(client: httpx.AsyncClient) -> None:
    response = await post(client, TEI)
    assert response.json() == [
        {"index": 2, "score": 1.0},
        {"index": 1, "score": 0.5},
        {"index": 0, "score": 0.0},
    ]
    asked = {**TEI, "return_text": True, "truncate": True, "truncation_direction": "Right"}
    rows = (await post(client, asked)).json()
    assert [row["text"] for row in rows] == ["ferry", "the ferry", "bread"]


async def test_tei_gets_finite_logits_when_it_asks_for_raw_scores(
    client: httpx.AsyncClient,
) -> None:
    rows = (await post(client, {**TEI, "raw_scores": True})).json()
    assert rows[1]["score"] == pytest.approx(0)
    assert all(math.isfinite(row["score"]) for row in rows)
    assert rows[0]["score"] == pytest.approx(-rows[2]["score"], abs=1e-3)


@pytest.mark.parametrize(
    ("fields", "status", "kind"),
    [
        ({"texts": []}, 400, "Empty"),
        ({"texts": ["a", 1]}, 422, "Validation"),
        ({"texts": ["a"] * 1001}, 422, "Validation"),
        ({"query": ""}, 422, "Validation"),
        ({"raw_scores": 1}, 422, "Validation"),
        ({"truncation_direction": "up"}, 422, "Validation"),
        ({"top_n": 1}, 422, "Validation"),
    ],
)
async def test_tei_errors_have_its_form(
    client: httpx.AsyncClient, fields: dict[str, object], status: int, kind: str
) -> None:
    response = await post(client, {**TEI, **fields})
    assert response.status_code == status
    assert set(response.json()) == {"error", "error_type"}
    assert response.json()["error_type"] == kind


@pytest.mark.parametrize(
    ("error", "own", "tei", "kind"),
    [
        (Overloaded("full"), 503, 429, "Overloaded"),
        (EngineFailed("died"), 502, 424, "Backend"),
        (ContextTooLong("long"), 400, 413, "Validation"),
    ],
)
async def test_failures_of_the_model_have_the_form_of_who_asked(
    client: httpx.AsyncClient, graph: FakeGraph, error: Exception, own: int, tei: int, kind: str
) -> None:
    graph.error = error
    assert (await post(client, ASK)).status_code == own
    response = await post(client, TEI)
    assert (response.status_code, response.json()["error_type"]) == (tei, kind)
    assert ("retry-after" in response.headers) == (tei == 429)


async def test_rerank_is_described(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    ids = {paths[path]["post"]["operationId"] for path in PATHS}
    assert len(ids) == len(PATHS)
    body = paths["/rerank"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert [one["$ref"].rpartition("/")[2] for one in body["anyOf"]] == [
        "RerankRequest",
        "TeiRerankRequest",
    ]
