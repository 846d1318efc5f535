"""`/v1/data/…`."""

import base64
import json

import httpx
import pytest

from deployments.errors import StoreUnavailable
from deployments.types import Condition
from tests.unit.ingress.conftest import Build, in_process
from tests.unit.ingress.fake_collections import NOW
from tests.unit.ingress.fake_graph import FakeGraph


@pytest.fixture(autouse=True)
def docs(graph: FakeGraph) -> None:
    graph.stored["docs"] = {}


async def index(client: httpx.AsyncClient, *documents: object) -> httpx.Response:
    body = {"collection": "docs", "documents": documents}
    return await client.post("/v1/data/index", json=body)


def file(content: bytes, filename: str = "a.txt") -> dict[str, object]:
    encoded = base64.b64encode(content).decode()
    return {"file": {"filename": filename, "content_base64": encoded}}


async def test_index_stores_text_and_files(client: httpx.AsyncClient, graph: FakeGraph) -> None:
    text = {"id": "d1", "text": "héllo\n", "title": "T", "metadata": {"a": 1, "b": ["x"]}}
    response = await index(client, text, file(b"from a file", "dir/guide.txt"), file(b"md", "a.md"))
    assert response.status_code == 200
    first, second, third = response.json()["documents"]
    assert first == {"id": "d1", "status": "created", "num_chunks": 1}
    assert second["id"].startswith("doc_")
    assert response.json()["errors"] == []
    stored = graph.stored["docs"]
    assert (stored["d1"].text, stored["d1"].title) == ("héllo\n", "T")
    assert stored["d1"].metadata == {"a": 1, "b": ["x"]}
    assert (stored[second["id"]].text, stored[second["id"]].title) == ("from a file", "guide.txt")
    assert stored[third["id"]].title == "A title"


async def test_index_reports_a_broken_document_and_stores_the_others(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    bad_base64 = {"id": "b", "file": {"filename": "b.pdf", "content_base64": "!!!"}}
    response = await index(
        client, {"text": "ok"}, {"id": "x", **file(b"broken")}, bad_base64, file(b"  \n")
    )
    assert response.status_code == 200
    assert len(response.json()["documents"]) == 1
    broken, undecodable, empty = response.json()["errors"]
    assert (broken["id"], broken["filename"]) == ("x", "a.txt")
    assert broken["error"]["code"] == "unreadable_document"
    assert broken["error"]["param"] == "documents[1]"
    assert undecodable["error"]["param"] == "documents[2].file.content_base64"
    assert (empty["id"], empty["error"]["code"]) == (None, "unreadable_document")


async def test_index_of_broken_documents_only_has_the_errors_status(
    client: httpx.AsyncClient,
) -> None:
    response = await index(client, file(b"broken"), file(b"broken"))
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "unreadable_document"
    assert len(response.json()["errors"]) == 2


async def test_index_bounds_each_document(build: Build) -> None:
    async with in_process(build(max_document_bytes=1024, max_documents_per_call=2)) as client:
        both = await index(client, {"text": "é" * 600}, file(b"x" * 1025))
        assert both.status_code == 413
        many = await index(client, {"text": "a"}, {"text": "b"}, {"text": "c"})
        assert (many.status_code, many.json()["error"]["param"]) == (400, "documents")


@pytest.mark.parametrize(
    ("document", "param"),
    [
        ({}, "documents[0]"),
        ({"text": "a", **file(b"b")}, "documents[0]"),
        ({"text": ""}, "documents[0].text"),
        ({"text": " \n"}, "documents[0].text"),
        ({"text": "a\x00b"}, "documents[0].text"),
        ({"text": 5}, "documents[0].text"),
        ({"text": "a", "id": ""}, "documents[0].id"),
        ({"text": "a", "id": "../x"}, "documents[0].id"),
        ({"text": "a", "id": "a/../x"}, "documents[0].id"),
        ({"text": "a", "id": "a" * 201}, "documents[0].id"),
        ({"text": "a", "title": "\x00"}, "documents[0].title"),
        ({"text": "a", "metadata": {"a": {"b": 1}}}, "documents[0].metadata.a"),
        ({"text": "a", "metadata": {"a": "\x00"}}, "documents[0].metadata"),
        ({"text": "a", "metadata": []}, "documents[0].metadata"),
        ({"text": "a", "vectors": []}, "documents[0].vectors"),
        ({"file": {"filename": "", "content_base64": "YQ=="}}, "documents[0].file.filename"),
        ({"file": {"filename": "a"}}, "documents[0].file.content_base64"),
    ],
)
async def test_index_refuses_by_name(
    client: httpx.AsyncClient, document: dict[str, object], param: str
) -> None:
    response = await index(client, document)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param


async def test_index_refuses_an_id_twice(client: httpx.AsyncClient) -> None:
    assert (await index(client, {"id": "a", "text": "x"}, {"id": "a", "text": "y"})).is_error


async def test_index_into_a_missing_collection(client: httpx.AsyncClient) -> None:
    body = {"collection": "nope", "documents": [{"text": "a"}]}
    response = await client.post("/v1/data/index", json=body)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "collection_not_found"


async def test_index_takes_a_form(client: httpx.AsyncClient, graph: FakeGraph) -> None:
    form = {"collection": "docs", "id": "f1", "title": "T", "metadata": '{"a": 1}'}
    response = await client.post(
        "/v1/data/index", data=form, files={"file": ("guide.txt", b"form text")}
    )
    assert response.json()["documents"][0]["id"] == "f1"
    assert graph.stored["docs"]["f1"].text == "form text"
    assert graph.stored["docs"]["f1"].metadata == {"a": 1}
    several = await client.post(
        "/v1/data/index",
        data={"collection": "docs"},
        files=[("file", ("a.txt", b"a")), ("file", ("b.txt", b"b"))],
    )
    assert len(several.json()["documents"]) == 2


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ({}, ["a.txt"]),
        ({"collection": "docs"}, []),
        ({"collection": "docs", "unknown": "x"}, ["a.txt"]),
        ({"collection": "docs", "id": "x"}, ["a.txt", "b.txt"]),
        ({"collection": "docs", "metadata": "{"}, ["a.txt"]),
        ({"collection": "docs", "metadata": "[]"}, ["a.txt"]),
    ],
)
async def test_index_refuses_a_bad_form(
    client: httpx.AsyncClient, form: dict[str, str], names: list[str]
) -> None:
    files = [("file", (name, b"x")) for name in names]
    headers = {"content-type": "multipart/form-data; boundary=b"} if not names else {}
    response = await client.post("/v1/data/index", data=form, files=files, headers=headers)
    assert response.status_code == 400, response.text


@pytest.mark.parametrize("content", [b"", b"--b\r\n", b"junk", b"--b\r\nx\r\n\r\n"])
async def test_index_refuses_a_malformed_form(client: httpx.AsyncClient, content: bytes) -> None:
    for boundary in ("; boundary=b", "; boundary=b; charset=punycode", ""):
        headers = {"content-type": f"multipart/form-data{boundary}"}
        response = await client.post("/v1/data/index", content=content, headers=headers)
        assert response.status_code == 400


async def test_search_returns_whole_chunks(client: httpx.AsyncClient, graph: FakeGraph) -> None:
    await index(client, {"id": "d1", "text": "Ray Serve", "title": "Ray", "metadata": {"a": 1}})
    asked = {"collection": "docs", "query": "ray", "top_k": 3, "mode": "dense", "min_score": 0.2}
    asked |= {"filter": {"field": "a", "op": "≥", "value": 1}, "consistency": "eventual"}
    body = (await client.post("/v1/data/search", json=asked)).json()
    chunk = {
        "chunk_id": "d1:0",
        "document_id": "d1",
        "title": "Ray",
        "text": "Ray Serve",
        "start": 0,
        "end": 9,
        "score": 0.5,
        "cosine": 0.5,
        "rerank_score": None,
        "metadata": {"a": 1},
    }
    assert body == {"collection": "docs", "results": [chunk]}
    [search] = graph.searches
    assert (search.top_k, search.mode, search.min_score) == (3, "dense", 0.2)
    assert (search.filter, search.is_eventual) == (Condition("a", "gte", 1), True)


async def test_search_reranks_when_asked(client: httpx.AsyncClient) -> None:
    await index(client, {"id": "a", "text": "the ferry"}, {"id": "b", "text": "ferry"})
    asked = {"collection": "docs", "query": "ferry", "rerank": True}
    results = (await client.post("/v1/data/search", json=asked)).json()["results"]
    assert [one["document_id"] for one in results] == ["b", "a"]
    assert [one["rerank_score"] for one in results] == [1.0, 0.5]
    assert [one["score"] for one in results] == [1.0, 0.5]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"query": " "}, "query"),
        ({"query": "x" * 40_000}, "query"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": 101}, "top_k"),
        ({"mode": "magic"}, "mode"),
        ({"min_score": 2}, "min_score"),
        ({"vector": [0.1]}, "vector"),
        ({"rerank": 1}, "rerank"),
        ({"collection": "../x"}, "collection"),
        ({"filter": {"field": "a", "op": "eq", "value": "\x00"}}, "filter"),
        ({"filter": {"field": "a", "op": "in", "value": list(range(2000))}}, "filter"),
    ],
)
async def test_search_refuses_by_name(
    client: httpx.AsyncClient, fields: dict[str, object], param: str
) -> None:
    asked = {"collection": "docs", "query": "x", **fields}
    response = await client.post("/v1/data/search", json=asked)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def test_vectorize_returns_segments_with_vectors(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/data/vectorize", json={"texts": ["a b", "c"]})
    body = response.json()
    assert (body["model"], body["dim"], body["usage"]) == ("fake-embedder", 8, {"total_tokens": 3})
    [segment] = body["data"][0]["segments"]
    assert (segment["start"], segment["end"], segment["num_tokens"]) == (0, 3, 2)
    assert len(segment["vector"]) == 8


async def test_collections_are_created_listed_and_deleted(client: httpx.AsyncClient) -> None:
    created = await client.post("/v1/data/collections", json={"name": "new"})
    assert (created.status_code, created.json()["name"]) == (201, "new")
    again = await client.post("/v1/data/collections", json={"name": "new"})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "conflict")
    assert again.headers["x-should-retry"] == "false"
    page = (await client.get("/v1/data/collections", params={"limit": 1})).json()
    assert ([info["name"] for info in page["data"]], page["has_more"]) == (["docs"], True)
    rest = (await client.get("/v1/data/collections", params={"after": "docs"})).json()
    assert ([info["name"] for info in rest["data"]], rest["has_more"]) == (["new"], False)
    shown = (await client.get("/v1/data/collections/new")).json()
    assert shown == created.json() | {"index_stats": []}
    gone = await client.delete("/v1/data/collections/new")
    assert gone.json() == {"id": "new", "deleted": True}
    assert (await client.get("/v1/data/collections/new")).status_code == 404


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/v1/data/collections?limit=0", "limit"),
        ("/v1/data/collections?limit=x", "limit"),
        ("/v1/data/collections/UPPER", "name"),
        ("/v1/data/documents/d1", "collection"),
        ("/v1/data/documents/d1?collection=..", "collection"),
        ("/v1/data/documents/%00?collection=docs", "document_id"),
    ],
)
async def test_parameters_are_refused_by_name(
    client: httpx.AsyncClient, path: str, param: str
) -> None:
    response = await client.get(path)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("document_id", ["d1", "dir/a b.md", "手册:1"])
async def test_document_is_shown_and_deleted(client: httpx.AsyncClient, document_id: str) -> None:
    await index(client, {"id": document_id, "text": "Text", "metadata": {"a": None}})
    at = {"url": f"/v1/data/documents/{document_id}", "params": {"collection": "docs"}}
    assert (await client.get(**at)).json() == {
        "id": document_id,
        "collection": "docs",
        "title": "",
        "text": "Text",
        "metadata": {"a": None},
        "subject": None,
        "num_chunks": 1,
        "created_at": NOW,
        "updated_at": NOW,
    }
    assert (await client.delete(**at)).json() == {"id": document_id, "deleted": True}
    missing = await client.get(**at)
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "document_not_found")


async def test_store_failure_is_503_everywhere(client: httpx.AsyncClient, graph: FakeGraph) -> None:
    graph.error = StoreUnavailable("the database does not answer")
    for method, path, body in [
        ("GET", "/v1/models", None),
        ("GET", "/v1/data/collections", None),
        ("POST", "/v1/data/search", {"collection": "docs", "query": "x"}),
        ("POST", "/v1/data/index", {"collection": "docs", "documents": [{"text": "x"}]}),
    ]:
        content = json.dumps(body).encode() if body else None
        response = await client.request(method, path, content=content)
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
