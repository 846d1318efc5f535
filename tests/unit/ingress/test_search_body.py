"""The options of `/v1/data/search`, from the body to the graph and back."""

import dataclasses

import httpx
import pytest

from deployments.types import Passage, ScoredChunk
from tests.unit.ingress.fake_graph import FakeGraph

PASSAGE = Passage("p", "near", 0, 4)
CHUNK = ScoredChunk(
    chunk_id="c",
    document_id="d",
    title="",
    text="text",
    start=5,
    end=9,
    score=0.5,
    before=(PASSAGE,),
    highlights=((0, 4),),
)


@pytest.fixture(autouse=True)
def docs(graph: FakeGraph) -> None:
    graph.stored["docs"] = {}


async def search(client: httpx.AsyncClient, **fields: object) -> httpx.Response:
    return await client.post("/v1/data/search", json={"collection": "docs", **fields})


async def test_options_reach_the_graph(client: httpx.AsyncClient, graph: FakeGraph):
    options = {"weights": {"dense": 0.25}, "candidates": 7, "group_by": "document", "offset": 20}
    options |= {"max_per_document": 3, "neighbors": 2, "highlights": True}
    assert (await search(client, query="x", **options)).status_code == 200
    [request] = graph.searches
    assert (request.weights, request.candidates, request.offset) == ((0.25, 1.0), 7, 20)
    assert (request.max_per_document, request.neighbors) == (3, 2)
    assert (request.has_highlights, request.vector) == (True, None)


async def test_effort_reaches_the_graph(client: httpx.AsyncClient, graph: FakeGraph):
    assert (await search(client, query="x", nprobe=7, ef_search=300)).status_code == 200
    [request] = graph.searches
    assert (request.nprobe, request.ef_search) == (7, 300)


@pytest.mark.parametrize(
    "fields",
    [
        {"nprobe": 0},
        {"nprobe": 65_537},
        {"ef_search": 4097},
        {"nprobe": 3, "mode": "lexical"},
        {"ef_search": 3, "mode": "lexical"},
    ],
)
async def test_effort_out_of_bounds_is_refused(client: httpx.AsyncClient, fields: dict):
    response = await search(client, query="x", **fields)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == next(iter(fields))


async def test_vector_takes_the_querys_place(client: httpx.AsyncClient, graph: FakeGraph):
    await search(client, vector=[1, 0.5], mode="dense", group_by="document")
    [request] = graph.searches
    assert (request.vector, request.query, request.max_per_document) == ((1.0, 0.5), "", 1)


async def test_result_has_what_was_asked_for(
    client: httpx.AsyncClient, graph: FakeGraph, monkeypatch
):
    async def found(*_: object, **__: object) -> list[ScoredChunk]:
        return [CHUNK]

    monkeypatch.setattr(graph, "search", found)
    plain = (await search(client, query="x")).json()["results"][0]
    assert not plain.keys() & {"before", "after", "highlights"}
    [whole] = (await search(client, query="x", neighbors=1, highlights=True)).json()["results"]
    assert whole["before"] == [dataclasses.asdict(PASSAGE)]
    assert (whole["after"], whole["highlights"]) == ([], [[0, 4]])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "query"),
        ({"query": "x", "vector": [1.0], "mode": "dense"}, "vector"),
        ({"vector": [1.0]}, "vector"),
        ({"vector": [1.0], "mode": "lexical"}, "vector"),
        ({"vector": [], "mode": "dense"}, "vector"),
        ({"vector": ["1"], "mode": "dense"}, "vector[0]"),
        ({"vector": [1.0], "mode": "dense", "highlights": True}, "highlights"),
        ({"query": "x", "max_per_document": 2}, "max_per_document"),
        ({"query": "x", "group_by": "title"}, "group_by"),
        ({"query": "x", "weights": {"dense": 0, "lexical": 0}}, "weights"),
        ({"query": "x", "weights": {"dense": 2}}, "weights.dense"),
        ({"query": "x", "weights": {}, "mode": "dense"}, "weights"),
        ({"query": "x", "candidates": 5, "mode": "dense"}, "candidates"),
        ({"query": "x", "candidates": 1001}, "candidates"),
        ({"query": "x", "offset": 10_001}, "offset"),
        ({"query": "x", "neighbors": 11}, "neighbors"),
    ],
)
async def test_what_does_not_fit_is_refused_by_name(
    client: httpx.AsyncClient, fields: dict[str, object], param: str
):
    response = await search(client, **fields)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def test_filter_nested_1000_deep_is_refused(client: httpx.AsyncClient):
    deep = '{"not":' * 1000 + '{"field":"a","op":"exists"}' + "}" * 1000
    content = '{"collection":"docs","query":"x","filter":' + deep + "}"
    response = await client.post("/v1/data/search", content=content)
    assert response.status_code == 400
    assert "nested deeper" in response.json()["error"]["message"]


async def test_rerank_needs_words_and_reaches_so_far(client: httpx.AsyncClient):
    for body, param in (
        ({"vector": [1.0, 0.0], "mode": "dense"}, "rerank"),
        ({"query": "x", "offset": 95, "top_k": 10}, "offset"),
    ):
        response = await client.post(
            "/v1/data/search", json={"collection": "docs", "rerank": True, **body}
        )
        assert response.status_code == 400
        assert response.json()["error"]["param"] == param
