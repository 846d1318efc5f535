"""Reranking and Dify through the edge and real handles: cross-encoder and late fusion."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.stack import Stack

DOCUMENTS = [
    {"id": "bread", "text": "Golden Crumb sells Nightloaf bread.", "metadata": {"year": 2025}},
    {"id": "ferry", "text": "The ferry to Skarro costs twelve dollars.", "title": "Ferry"},
    {"id": "bikes", "text": "On the ferry bicycles travel free of charge."},
]
TEXTS = [str(one["text"]) for one in DOCUMENTS]
QUERY = "what costs the ferry to Skarro"


@pytest.fixture(scope="module", autouse=True)
def trips(stack: Stack) -> Iterator[None]:
    with stack.client() as client:
        body = {"collection": "trips", "documents": DOCUMENTS}
        client.post("/v1/data/index", json=body).raise_for_status()
        yield
        client.delete("/v1/data/collections/trips").raise_for_status()


def ask_dify(client: httpx.Client, **fields: Any) -> httpx.Response:
    setting = {"top_k": 2, "score_threshold": 0.0}
    body = {"knowledge_id": "trips", "query": QUERY, "retrieval_setting": setting, **fields}
    return client.post("/dify/retrieval", json=body)


@pytest.mark.parametrize("model", [None, "fake-reranker", "late-fusion"])
@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_rerank_scores_every_document(client: httpx.Client, path: str, model: str | None) -> None:
    body = {"model": model, "query": QUERY, "documents": TEXTS, "top_n": 3}
    response = client.post(path, json=body)
    rows = response.json()["results"]
    assert sorted(row["index"] for row in rows) == [0, 1, 2]
    assert rows[0]["index"] == 1
    scores = [row["relevance_score"] for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert scores == [r["relevance_score"] for r in client.post(path, json=body).json()["results"]]


def test_tei_rerank_and_its_errors(client: httpx.Client) -> None:
    rows = client.post("/rerank", json={"query": QUERY, "texts": TEXTS, "return_text": True}).json()
    assert (rows[0]["index"], rows[0]["text"]) == (1, TEXTS[1])
    response = client.post("/rerank", json={"query": "word " * 1000, "texts": TEXTS})
    assert (response.status_code, response.json()["error_type"]) == (413, "Validation")


def test_search_and_answer_rerank(client: httpx.Client) -> None:
    search = {"collection": "trips", "query": QUERY, "top_k": 1, "rerank": True}
    [chunk] = client.post("/v1/data/search", json=search).json()["results"]
    assert (chunk["document_id"], chunk["rerank_score"]) == ("ferry", chunk["score"])
    retrieval = {"collection": "trips", "top_k": 1, "rerank": True}
    asked = {"prompt": QUERY, "retrieval": retrieval, "max_tokens": 8}
    answer = client.post("/v1/inference", json=asked).json()
    assert [source["document_id"] for source in answer["sources"]] == ["ferry"]
    assert answer["sources"][0]["score"] == pytest.approx(chunk["score"], abs=1e-6)


def test_dify_registers_and_retrieves(stack: Stack, client: httpx.Client) -> None:
    probe = httpx.post(f"{stack.url}/dify/retrieval", headers=stack.headers)
    assert probe.status_code == 400
    records = ask_dify(client).json()["records"]
    assert len(records) == 2
    assert (records[0]["title"], records[0]["metadata"]["document_id"]) == ("Ferry", "ferry")
    assert all(0 <= record["score"] <= 1 for record in records)
    assert all(record["metadata"] is not None for record in records)
    high = {"top_k": 2, "score_threshold": records[0]["score"]}
    assert len(ask_dify(client, retrieval_setting=high).json()["records"]) == 1
    health = client.get("/dify/health", params={"knowledge_id": "trips"})
    assert (health.status_code, health.json()["status"]) == (200, "ok")


def test_dify_errors_have_its_form(stack: Stack, client: httpx.Client) -> None:
    missing = ask_dify(client, knowledge_id="nowhere")
    assert (missing.status_code, missing.json()["error_code"]) == (404, 2001)
    for headers, code in (({}, 1001), ({"authorization": "Bearer rk-wrong"}, 1002)):
        refused = httpx.post(f"{stack.url}/dify/retrieval", headers=headers)
        assert (refused.status_code, refused.json()["error_code"]) == (403, code)


def test_reranker_is_ready_and_counted(client: httpx.Client) -> None:
    assert client.get("/v1/health/ready").json()["parts"]["reranker"] is True
    assert "ragserve_reranker_replicas 1.0" in client.get("/v1/metrics").text
    ids = [model["id"] for model in client.get("/v1/models").json()["data"]]
    assert {"fake-reranker", "late-fusion"} <= set(ids)
