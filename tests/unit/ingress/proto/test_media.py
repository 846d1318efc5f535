"""Protobuf over HTTP: who gets it, streams of it, and errors in it."""

import httpx
import pytest

from deployments.errors import EngineFailed
from deployments.ingress.proto import dify_pb2
from deployments.ingress.proto.media import DELIMITED, PROTOBUF
from deployments.ingress.proto.stream import Splitter
from tests.unit.ingress.conftest import Build, in_process
from tests.unit.ingress.fake_graph import FakeGraph

ASK = dify_pb2.TextRequest(prompt="hi you")
JSON = "application/json"


async def asked(
    client: httpx.AsyncClient, content: bytes, path: str = "/v1/inference", **headers: str
) -> httpx.Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post(path, content=content, headers=sent)


@pytest.mark.parametrize(
    ("content_type", "accept", "is_protobuf"),
    [
        (PROTOBUF, "*/*", True),
        (PROTOBUF, "", True),
        (f"{PROTOBUF}; charset=x", "application/*", True),
        (PROTOBUF.upper(), "text/html, */*;q=0.1", True),
        (PROTOBUF, JSON, False),
        (JSON, PROTOBUF, True),
        (JSON, f"{JSON};q=0.5, {PROTOBUF}", True),
        (JSON, "*/*", False),
        ("", "*/*", False),
    ],
)
async def test_answer_is_in_the_form_that_is_wanted(
    client: httpx.AsyncClient, content_type: str, accept: str, is_protobuf: bool
) -> None:
    is_sent = content_type.lower().startswith(PROTOBUF)
    content = ASK.SerializeToString() if is_sent else b'{"prompt": "hi you"}'
    answer = await asked(client, content, content_type=content_type, accept=accept)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == (PROTOBUF if is_protobuf else JSON)
    read = dify_pb2.TextResponse.FromString(answer.content) if is_protobuf else None
    output = read.output if read else answer.json()["output"]
    assert output == "echo: hi you"


async def stream(client: httpx.AsyncClient) -> list[dify_pb2.TextDelta]:
    content = dify_pb2.TextRequest(prompt="hi you", stream=True).SerializeToString()
    answer = await asked(client, content, content_type=PROTOBUF)
    assert answer.headers["content-type"] == DELIMITED
    return [dify_pb2.TextDelta.FromString(one) for one in Splitter().split(answer.content)]


async def test_stream_is_messages_with_their_lengths(client: httpx.AsyncClient) -> None:
    *deltas, end = await stream(client)
    assert "".join(one.delta.text for one in deltas) == "echo: hi you"
    assert (end.done.finish_reason, end.done.usage.total_tokens) == ("stop", 9)


async def test_stream_that_fails_ends_with_an_error(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    graph.error, graph.error_after = EngineFailed("the replica is gone"), 1
    first, end = await stream(client)
    assert first.delta.text == "echo:"
    assert (end.error.code, end.error.message) == ("engine_failed", "the replica is gone")
    assert end.error.request_id.startswith("req_")


async def test_slow_stream_shows_by_empty_messages_that_it_lives(
    build: Build, graph: FakeGraph
) -> None:
    graph.delay_s = 0.1
    async with in_process(build(heartbeat_s=0.02)) as client:
        events = await stream(client)
    kinds = [one.WhichOneof("event") for one in events]
    assert None in kinds
    assert [one for one in kinds if one] == ["delta", "delta", "delta", "done"]


@pytest.mark.parametrize("path", ["/v1/inference", "/v1/data/search"])
@pytest.mark.parametrize(("key", "status"), [("rk-nobody", 401), ("rk-test", 400)])
async def test_errors_are_messages_too(
    client: httpx.AsyncClient, path: str, key: str, status: int
) -> None:
    bearer = f"Bearer {key}"
    answer = await asked(client, b"\xff", path, content_type=PROTOBUF, authorization=bearer)
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROTOBUF)
    error = dify_pb2.Error.FromString(answer.content)
    assert error.request_id == answer.headers["x-request-id"]
    assert error.type == ("authentication_error" if status == 401 else "invalid_request_error")


async def test_other_routes_speak_json_only(client: httpx.AsyncClient) -> None:
    answer = await asked(client, b"\xff", "/v1/embeddings", content_type=PROTOBUF)
    assert (answer.status_code, answer.headers["content-type"]) == (400, JSON)


async def test_routes_that_speak_protobuf_say_so(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    speaking = {
        path
        for path, methods in paths.items()
        if PROTOBUF in methods.get("post", {}).get("requestBody", {}).get("content", {})
    }
    assert speaking == {"/v1/inference", "/v1/data/search"}
    search = paths["/v1/data/search"]["post"]
    assert all(PROTOBUF in one["content"] for one in search["responses"].values())
