"""Export and import routes: bodies, streams, and what cuts them."""

import asyncio

import httpx
import pytest

from deployments.errors import Conflict, Forbidden
from deployments.ingress.schemas.transfer import PARQUET
from deployments.types import Document
from tests.unit.ingress.conftest import Build, Served
from tests.unit.ingress.fake_graph import FakeGraph

EXPORT = "/v1/data/collections/docs/export"
IMPORT = "/v1/data/collections/docs/import"


@pytest.fixture(autouse=True)
def _stored(graph: FakeGraph) -> None:
    graph.stored["docs"] = {key: Document(id=key, text="x") for key in ("a", "b", "c")}


async def test_export_streams_the_file(client: httpx.AsyncClient, graph: FakeGraph) -> None:
    response = await client.post(EXPORT)
    assert (response.status_code, response.content) == (200, b"abcend")
    assert response.headers["content-type"] == PARQUET
    assert 'filename="docs.parquet"' in response.headers["content-disposition"]
    assert (await client.post(EXPORT, json={})).content == b"abcend"
    assert graph.num_running == 0


async def test_export_to_a_uri_says_what_was_written(client: httpx.AsyncClient) -> None:
    response = await client.post(EXPORT, json={"uri": "/data/default/x.parquet"})
    assert response.json()["uri"] == "/data/default/x.parquet"
    assert response.json()["num_documents"] == 3


async def test_errors_before_the_first_piece_have_their_status(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    missing = await client.post("/v1/data/collections/none/export")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "collection_not_found")
    graph.error = Forbidden("no root")
    assert (await client.post(EXPORT, json={"uri": "/etc/passwd"})).status_code == 403
    assert graph.num_running == 0


async def test_stream_that_breaks_off_is_cut(
    build: Build, graph: FakeGraph, served: Served
) -> None:
    graph.error_after = 2
    async with served(build()) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post(EXPORT)
    assert graph.num_running == 0


async def test_client_that_leaves_ends_the_export(
    build: Build, graph: FakeGraph, served: Served
) -> None:
    graph.delay_s = 5
    async with served(build()) as client:
        async with client.stream("POST", EXPORT) as response:
            assert response.status_code == 200
            assert graph.num_running == 1
        async with asyncio.timeout(3):
            while graph.num_running:
                await asyncio.sleep(0.01)


async def test_import_takes_a_body_or_a_uri(client: httpx.AsyncClient, graph: FakeGraph) -> None:
    response = await client.post(IMPORT, content=b"a\nb", headers={"content-type": PARQUET})
    assert response.json()["num_created"] == 2
    assert (await client.post(IMPORT, json={"uri": "s3://bucket/x"})).status_code == 200
    assert graph.sources == [b"a\nb", "s3://bucket/x"]


async def test_import_reports_refused_rows(build: Build, graph: FakeGraph) -> None:
    from tests.unit.ingress.conftest import in_process

    async with in_process(build(max_document_bytes=1024)) as client:
        body = b"a\n" + b"x" * 1025
        response = await client.post(IMPORT, content=body, headers={"content-type": PARQUET})
    answer = response.json()
    assert (answer["num_created"], answer["num_failed"]) == (1, 1)
    (refused,) = answer["errors"]
    assert (refused["row"], refused["id"]) == (1, "row1")
    assert refused["error"]["code"] == "invalid_request"
    assert refused["error"]["request_id"]


@pytest.mark.parametrize(
    ("content", "content_type"),
    [(b"", PARQUET), (b"PAR1", "application/octet-stream"), (b"{}", "application/json")],
)
async def test_other_bodies_are_invalid(
    client: httpx.AsyncClient, content: bytes, content_type: str, graph: FakeGraph
) -> None:
    response = await client.post(IMPORT, content=content, headers={"content-type": content_type})
    assert response.status_code == 400
    assert graph.sources == []


async def test_errors_of_an_import_keep_their_status(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    graph.error = Conflict("another model")
    response = await client.post(IMPORT, content=b"x", headers={"content-type": PARQUET})
    assert response.status_code == 409


async def test_import_reports_what_was_erased(client: httpx.AsyncClient) -> None:
    body = b"a\nerased\nb\nerased"
    answer = (await client.post(IMPORT, content=body, headers={"content-type": PARQUET})).json()
    assert (answer["num_rows"], answer["num_created"], answer["num_suppressed"]) == (4, 2, 2)
    assert answer["errors"] == []
