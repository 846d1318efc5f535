"""B2: whatever is sent, a call ends with a code that says something, and never by a fault of ours.

Messages are made from the descriptors, and bytes from nothing.
"""

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments.config import RpcArgs
from deployments.ingress.app import build_app
from deployments.ingress.proto import dify_pb2
from deployments.ingress.rpc.server import RpcServer
from deployments.types import Document
from tests.unit.ingress.conftest import ARGS, UNTOUCHED, FakeFactors, FakeKeys, extract
from tests.unit.ingress.fake_graph import FakeGraph
from tests.unit.ingress.rpc.conftest import BEARER

METHODS = {
    "GenerateText": dify_pb2.TextRequest,
    "StreamText": dify_pb2.TextRequest,
    "VectorSearch": dify_pb2.SearchRequest,
}
SAID = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAUTHENTICATED,
}
TEXTS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["docs", "user", "system", "dense", "hybrid", "json", "regex", "document"]),
    st.sampled_from(["fake-model", "rag/docs", "", "\x00", "eq", "year", "text", "json_schema"]),
)
NUMBERS = st.floats(width=32) | st.sampled_from([0.0, 0.5, 1.0])
VALUES = {1: NUMBERS, 2: NUMBERS, 3: st.integers(-(2**63), 2**63 - 1), 8: st.booleans()}
VALUES |= {5: st.integers(-(2**31), 2**31 - 1) | st.integers(0, 5), 9: TEXTS}
VALUES |= {13: st.integers(0, 2**32 - 1)}
"""By the number of a field's type."""


@pytest.fixture(scope="module")
def channel() -> Iterator[grpc.Channel]:
    graph = FakeGraph()
    graph.stored["docs"] = {"d1": Document(id="d1", text="Ray Serve", title="Ray")}
    app = build_app(
        graph, FakeKeys(), ARGS, extract=extract, factors=FakeFactors(), replays=UNTOUCHED
    )
    server = RpcServer(app, RpcArgs())
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield channel
    asyncio.run_coroutine_threadsafe(server.stop(5), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@st.composite
def messages(draw: Any, kind: Any, depth: int = 4) -> Any:
    message = kind()
    fields = draw(st.lists(st.sampled_from(list(kind.DESCRIPTOR.fields)), max_size=6, unique=True))
    for field in fields:
        _set(draw, message, field, depth)
    return message


def _set(draw: Any, message: Any, field: Any, depth: int) -> None:
    target = getattr(message, field.name)
    if field.message_type is None:
        if field.is_repeated:
            target.extend(draw(st.lists(VALUES[field.type], max_size=4)))
        elif field.type == field.TYPE_ENUM:
            setattr(message, field.name, 0)
        else:
            setattr(message, field.name, draw(VALUES[field.type]))
    elif depth == 0:
        return
    elif field.message_type.GetOptions().map_entry:
        _set_map(draw, target, field.message_type.fields_by_name, depth)
    elif field.is_repeated:
        inner = draw(st.lists(messages(_class(field), depth - 1), max_size=3))
        target.extend(inner)
    else:
        target.CopyFrom(draw(messages(_class(field), depth - 1)))


def _set_map(draw: Any, target: Any, fields: Any, depth: int) -> None:
    for key in draw(st.lists(VALUES[fields["key"].type], max_size=3)):
        if fields["value"].message_type is None:
            target[key] = draw(VALUES[fields["value"].type])
        else:
            target[key].CopyFrom(draw(messages(_class(fields["value"]), depth - 1)))


def _class(field: Any) -> Any:
    return field.message_type._concrete_class


def ended(channel: grpc.Channel, method: str, raw: bytes, metadata: Any = BEARER) -> Any:
    call = channel.unary_stream(f"/ragserve.v1.DifyService/{method}")(raw, metadata=metadata)
    with suppress(grpc.RpcError):
        assert list(call)
    assert call.code() in SAID, (call.code(), call.details())
    return call.code()


thorough = settings(
    max_examples=5_000 if os.environ.get("RAGSERVE_TEST_SECURITY") == "all" else 500,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


@thorough
@given(st.sampled_from(sorted(METHODS)), st.data())
def test_b2_messages_are_answered_or_refused(channel: grpc.Channel, method: str, data: Any) -> None:
    ended(channel, method, data.draw(messages(METHODS[method])).SerializeToString())


@thorough
@given(st.sampled_from(sorted(METHODS)), st.binary(max_size=200))
def test_b2_bytes_are_answered_or_refused(channel: grpc.Channel, method: str, raw: bytes) -> None:
    ended(channel, method, raw)


def test_b2_messages_without_end_are_refused(channel: grpc.Channel) -> None:
    raw = b""
    for _ in range(5000):  # a filter in a filter, as deep as nobody reads
        raw = b"\x12" + _varint(len(raw)) + raw
    assert ended(channel, "VectorSearch", raw) is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "metadata",
    [
        (*BEARER, *BEARER),
        (*BEARER, ("x-request-id", "a b")),
        (*BEARER, ("traceparent", "x" * 2000)),
        (*BEARER, ("idempotency-key", "")),
        (*BEARER, ("some-bin", b"\x00\xff")),
    ],
)
def test_b2_metadata_is_taken_or_refused(channel: grpc.Channel, metadata: Any) -> None:
    raw = dify_pb2.TextRequest(prompt="x").SerializeToString()
    ended(channel, "GenerateText", raw, metadata)


def _varint(number: int) -> bytes:
    from deployments.ingress.proto.stream import delimited

    return delimited(b"x" * number)[:-number] if number else b"\x00"
