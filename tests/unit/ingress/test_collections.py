"""`/v1/data/collections` and the list of `/v1/data/documents`."""

from typing import Any

import httpx
import pytest

from deployments.errors import InvalidRequest
from deployments.types import (
    CollectionChanges,
    CollectionSettings,
    Document,
    IndexSettings,
)
from tests.unit.ingress.fake_graph import FakeGraph
from tests.unit.ingress.fake_models import DIM, DIMS

COLLECTIONS = "/v1/data/collections"


async def create(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post(COLLECTIONS, json={"name": "c", **body})


async def test_created_with_nothing_said_has_the_defaults(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    shown = (await create(client)).json()
    assert graph.settings["c"] == CollectionSettings(embedding_model="fake-embedder", dim=DIM)
    assert (shown["embedding_model"], shown["dim"], shown["metric"]) == (
        "fake-embedder",
        DIM,
        "cosine",
    )
    assert shown["index"] == {"kind": "auto", "storage": "fp32"}
    assert shown["default_metadata"] == {}
    assert (await client.get(f"{COLLECTIONS}/c")).json() == shown | {"index_stats": []}
    assert (await client.get(COLLECTIONS)).json()["data"] == [shown]


async def test_collection_shows_what_each_replica_holds(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    await create(client)
    graph.num_holders = 2
    held = (await client.get(f"{COLLECTIONS}/c")).json()["index_stats"]
    assert len(held) == 2
    assert (held[0]["kind"], held[0]["num_rows"], held[0]["recall_at_10"]) == ("flat", 1, None)


async def test_created_with_settings(client: httpx.AsyncClient, graph: FakeGraph) -> None:
    index = {"kind": "hnsw", "storage": "fp16"}
    defaults = {"team": "a", "tags": [1, None, True]}
    body = {"embedding_model": "small-embedder", "dim": 3, "metric": "l2", "description": "d"}
    response = await create(client, **body, index=index, default_metadata=defaults)
    assert response.status_code == 201
    assert graph.settings["c"] == CollectionSettings(
        description="d",
        embedding_model="small-embedder",
        dim=DIMS["small-embedder"],
        metric="l2",
        index=IndexSettings(**index),
        default_metadata=defaults,
    )
    assert response.json() | body | {"index": index} == response.json()


async def test_created_without_a_model(client: httpx.AsyncClient, graph: FakeGraph) -> None:
    shown = (await create(client, embedding_model=None, dim=5)).json()
    assert (shown["embedding_model"], shown["dim"]) == (None, 5)
    assert graph.settings["c"].embedding_model == ""


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"embedding_model": "nope"}, 404, "embedding_model"),
        ({"embedding_model": "fake-model"}, 404, "embedding_model"),
        ({"embedding_model": None}, 400, "dim"),
        ({"embedding_model": "small-embedder", "dim": DIM}, 400, "dim"),
        ({"dim": DIM + 1}, 400, "dim"),
        ({"dim": 0}, 400, "dim"),
        ({"metric": "hamming"}, 400, "metric"),
        ({"index": {"kind": "lsh"}}, 400, "index.kind"),
        ({"index": {"storage": "fp8"}}, 400, "index.storage"),
        ({"index": {"lists": 3}}, 400, "index.lists"),
        ({"default_metadata": {"a": {"b": 1}}}, 400, "default_metadata.a"),
        ({"default_metadata": {"a": "\x00"}}, 400, "default_metadata"),
        ({"name": "acme/c"}, 400, "name"),
        ({"tenant": "beta"}, 400, "tenant"),
    ],
)
async def test_create_refuses_by_name(
    client: httpx.AsyncClient, graph: FakeGraph, body: dict[str, Any], status: int, param: str
) -> None:
    response = await create(client, **body)
    assert (response.status_code, response.json()["error"]["param"]) == (status, param)
    assert graph.stored == {}


@pytest.mark.parametrize(
    ("body", "changes"),
    [
        ({}, CollectionChanges()),
        ({"description": ""}, CollectionChanges(description="")),
        ({"index": {"kind": "flat"}}, CollectionChanges(index_kind="flat")),
        ({"index": {"storage": "int8"}}, CollectionChanges(index_storage="int8")),
        ({"default_metadata": {}}, CollectionChanges(default_metadata={})),
        ({"default_metadata": {"a": 1}}, CollectionChanges(default_metadata={"a": 1})),
        ({"description": None, "index": None, "metric": None}, CollectionChanges()),
    ],
)
async def test_update_changes_what_is_named(
    client: httpx.AsyncClient, graph: FakeGraph, body: dict[str, Any], changes: CollectionChanges
) -> None:
    await create(client)
    response = await client.patch(f"{COLLECTIONS}/c", json=body)
    assert (response.status_code, response.json()["name"]) == (200, "c")
    assert graph.changes == [changes]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": "d"}, "name"),
        ({"embedding_model": "small-embedder"}, "embedding_model"),
        ({"dim": DIM}, "dim"),
        ({"metric": "cosine"}, "metric"),
        ({"num_documents": 3}, "num_documents"),
        ({"index": {"kind": "best"}}, "index.kind"),
        ({"description": "x" * 2001}, "description"),
    ],
)
async def test_update_refuses_the_rest_by_name(
    client: httpx.AsyncClient, graph: FakeGraph, body: dict[str, Any], param: str
) -> None:
    await create(client)
    response = await client.patch(f"{COLLECTIONS}/c", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert graph.changes == []


async def test_update_of_an_unknown_collection_is_404(client: httpx.AsyncClient) -> None:
    response = await client.patch(f"{COLLECTIONS}/c", json={"description": "x"})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "collection_not_found")


async def test_documents_are_listed_in_pages(client: httpx.AsyncClient, graph: FakeGraph) -> None:
    ids = ["a", "b/ü", "c", "d", "e"]
    graph.stored["c"] = {one: Document(id=one, text="long", subject="anna") for one in ids}
    seen: list[str] = []
    has_more = True
    while has_more:
        params = {"collection": "c", "limit": 2, "after": seen[-1] if seen else ""}
        page = (await client.get("/v1/data/documents", params=params)).json()
        has_more = page["has_more"]
        seen += [one["id"] for one in page["data"]]
        assert all(one["subject"] == "anna" and "text" not in one for one in page["data"])
    assert seen == ids


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({}, "collection"),
        ({"collection": "a/b"}, "collection"),
        ({"collection": "c", "limit": "0"}, "limit"),
        ({"collection": "c", "after": "\x00"}, "after"),
        ({"collection": "c", "after": "x" * 257}, "after"),
    ],
)
async def test_documents_list_refuses_by_name(
    client: httpx.AsyncClient, graph: FakeGraph, params: dict[str, str], param: str
) -> None:
    graph.stored["c"] = {}
    response = await client.get("/v1/data/documents", params=params)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def test_index_takes_a_subject(client: httpx.AsyncClient, graph: FakeGraph) -> None:
    documents = [
        {"id": "a", "text": "x", "subject": "anna@example.com"},
        {"id": "b", "text": "x", "subject": "s" * 257},
        {"id": "c", "text": "x", "subject": ""},
        {"id": "d", "text": "x", "subject": 7},
        {"id": "e", "text": "x", "subject": None},
    ]
    graph.stored["c"] = {}
    body = {"collection": "c", "documents": documents}
    answer = (await client.post("/v1/data/index", json=body)).json()
    assert [one["id"] for one in answer["documents"]] == ["a", "e"]
    params = {error["error"]["param"] for error in answer["errors"]}
    assert params == {f"documents[{n}].subject" for n in (1, 2, 3)}
    shown = await client.get("/v1/data/documents/a", params={"collection": "c"})
    assert shown.json()["subject"] == "anna@example.com"
    form = {"collection": "c", "id": "f", "subject": "ben"}
    await client.post("/v1/data/index", data=form, files={"file": ("a.txt", b"text")})
    assert graph.stored["c"]["f"].subject == "ben"


async def test_ready_vectors_fit_their_collection(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    await create(client, embedding_model=None, dim=2, metric="dot")
    documents = [
        {"id": "a", "text": "x", "vector": [3, 4]},
        {"id": "b", "text": "x", "vector": [0, 0]},
        {"id": "c", "text": "x", "vector": [1, 2, 3]},
        {"id": "d", "text": "x", "vector": [1e20, 0]},
        {"id": "e", "text": "no vector"},
    ]
    body = {"collection": "c", "documents": documents}
    answer = (await client.post("/v1/data/index", json=body)).json()
    assert [one["id"] for one in answer["documents"]] == ["a", "b"]
    stored = graph.stored["c"]["a"].embedded
    assert stored is not None
    assert stored.vectors.tolist() == [[3.0, 4.0]]
    params = [error["error"]["param"] for error in answer["errors"]]
    assert params == ["documents[2].vector", "documents[3].vector", "documents[4]"]


async def test_vectorize_takes_any_embedding_model(client: httpx.AsyncClient) -> None:
    for model, dim in DIMS.items():
        body = {"texts": ["a b"], "model": model}
        answer = (await client.post("/v1/data/vectorize", json=body)).json()
        assert (answer["model"], answer["dim"]) == (model, dim)
        embedded = await client.post("/v1/embeddings", json={"input": "a b", "model": model})
        assert len(embedded.json()["data"][0]["embedding"]) == dim
    refused = await client.post("/v1/data/vectorize", json={"texts": ["a"], "model": "fake-model"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (404, "model")


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"retrieval": {"collection": "c"}}, "retrieval.collection"), ({"model": "rag/c"}, "model")],
)
async def test_collection_that_cannot_be_asked_is_named_as_the_body_does(
    client: httpx.AsyncClient, graph: FakeGraph, fields: dict[str, Any], param: str
) -> None:
    graph.stored["c"] = {}
    graph.error = InvalidRequest("the collection has no embedding model")
    graph.error.param = "collection"
    response = await client.post("/v1/inference", json={"prompt": "x", **fields})
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
