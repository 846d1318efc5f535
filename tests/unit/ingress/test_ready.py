"""`/v1/data/index` with vectors that the caller brings."""

import json

import httpx
import numpy as np
import pytest

from tests.unit.ingress.fake_graph import FakeGraph
from tests.unit.ingress.fake_models import DIM

GOOD = [3.0] + [0.0] * (DIM - 1)


@pytest.fixture(autouse=True)
def docs(graph: FakeGraph) -> None:
    graph.stored["docs"] = {}


async def index(client: httpx.AsyncClient, *documents: object) -> httpx.Response:
    body = json.dumps({"collection": "docs", "documents": documents})
    return await client.post("/v1/data/index", content=body)


async def test_vector_is_that_of_the_whole_text(client: httpx.AsyncClient, graph: FakeGraph):
    response = await index(client, {"id": "1", "text": "whole text", "vector": GOOD})
    assert response.json()["errors"] == []
    embedded = graph.stored["docs"]["1"].embedded
    assert [(s.start, s.end) for s in embedded.segments] == [(0, 10)]
    assert np.array_equal(embedded.vectors, [[1.0] + [0.0] * (DIM - 1)])
    assert embedded.vectors.dtype == np.float32


async def test_chunks_make_up_a_text(client: httpx.AsyncClient, graph: FakeGraph):
    chunks = [{"text": "one 🚀", "vector": GOOD}, {"text": "two", "vector": GOOD}]
    await index(client, {"id": "1", "chunks": chunks})
    stored = graph.stored["docs"]["1"]
    assert stored.text == "one 🚀\n\ntwo"
    spans = [stored.text[s.start : s.end] for s in stored.embedded.segments]
    assert spans == ["one 🚀", "two"]


async def test_chunks_lie_in_the_text(client: httpx.AsyncClient, graph: FakeGraph):
    chunks = [{"text": t, "vector": GOOD} for t in ("aa", "aab", "ab")]
    chunks += [{"text": "aa", "vector": GOOD, "start": 0, "end": 2}]
    await index(client, {"id": "1", "text": "aaabaab", "chunks": chunks})
    segments = graph.stored["docs"]["1"].embedded.segments
    assert [(s.start, s.end) for s in segments] == [(0, 2), (1, 4), (2, 4), (0, 2)]


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (GOOD[1:], f"{DIM - 1} numbers, not {DIM}"),
        ([*GOOD, 1.0], f"{DIM + 1} numbers"),
        ([], "0 numbers"),
        ([0] * DIM, "all zero"),
    ],
    ids=["short", "long", "empty", "zero"],
)
async def test_unusable_vector_is_its_documents_error(
    client: httpx.AsyncClient, graph: FakeGraph, vector: list[float], message: str
):
    broken = {"id": "broken", "text": "x", "vector": vector}
    parts = [{"text": "x", "vector": GOOD}, {"text": "y", "vector": vector}]
    response = await index(
        client, broken, {"id": "fine", "text": "y"}, {"id": "parts", "chunks": parts}
    )
    assert response.status_code == 200, response.text
    body = response.json()
    assert [one["id"] for one in body["documents"]] == ["fine"] == list(graph.stored["docs"])
    errors = {one["id"]: one["error"] for one in body["errors"]}
    assert errors["broken"]["param"] == "documents[0].vector"
    assert errors["parts"]["param"] == "documents[2].chunks[1].vector"
    assert all(message in error["message"] for error in errors.values())
    alone = await index(client, broken)
    assert (alone.status_code, alone.json()["error"]["param"]) == (400, "documents[0].vector")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
async def test_infinite_numbers_are_no_json(
    client: httpx.AsyncClient, graph: FakeGraph, number: str
):
    document = f'{{"text": "x", "vector": [{number}]}}'
    content = f'{{"collection": "docs", "documents": [{document}]}}'
    response = await client.post("/v1/data/index", content=content)
    assert response.status_code == 400
    assert graph.stored["docs"] == {}


@pytest.mark.parametrize(
    "chunk",
    [
        {"text": "absent", "vector": GOOD},
        {"text": "ab", "vector": GOOD, "start": 1, "end": 3},
        {"text": "ab", "vector": GOOD, "start": 0},
        {"text": "ab", "vector": GOOD, "start": 10**9, "end": 10**9 + 2},
    ],
)
async def test_chunk_outside_its_text_is_its_documents_error(
    client: httpx.AsyncClient, chunk: dict[str, object]
):
    response = await index(client, {"id": "1", "text": "abc", "chunks": [chunk]})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "documents[0].chunks[0]"


@pytest.mark.parametrize(
    "document",
    [
        {"vector": GOOD},
        {"text": "x", "vector": GOOD, "chunks": [{"text": "x", "vector": GOOD}]},
        {"chunks": []},
        {"chunks": [{"text": "x"}]},
        {"chunks": [{"text": " ", "vector": GOOD}]},
        {"text": "x", "vector": ["1"] * DIM},
        {"text": "x", "vector": [True] * DIM},
        {"file": {"filename": "a.txt", "content_base64": "eA=="}, "vector": GOOD},
        {"file": {"filename": "a.txt", "content_base64": "eA=="}, "chunks": [{"text": "x"}]},
    ],
)
async def test_what_is_no_document_is_refused(
    client: httpx.AsyncClient, graph: FakeGraph, document: dict[str, object]
):
    response = await index(client, document, {"id": "fine", "text": "y"})
    assert list(graph.stored["docs"]) == ["fine"]
    (failure,) = response.json()["errors"]
    assert failure["error"]["code"] == "invalid_request"
    assert failure["error"]["param"].startswith("documents[0]")


async def test_ready_vectors_and_cleaning_do_not_go_together(client: httpx.AsyncClient):
    body = {"collection": "docs", "documents": [{"text": "x", "vector": GOOD}], "clean": {}}
    response = await client.post("/v1/data/index", json=body)
    assert response.status_code == 400
    assert "cannot be cleaned" in response.json()["error"]["message"]
