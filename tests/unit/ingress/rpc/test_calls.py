"""What a call is beyond its answer: streams, leaving, deadlines, slow readers, health, bad ones."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from deployments.errors import EngineFailed
from deployments.ingress.proto import dify_pb2
from deployments.ingress.rpc import server as rpc_server
from deployments.types import Document
from tests.unit.ingress.conftest import Build, until
from tests.unit.ingress.fake_graph import FakeGraph
from tests.unit.ingress.rpc.conftest import BEARER, Served, Serving
from tests.unit.ingress.rpc.forms import Recorder

ASK = dify_pb2.TextRequest(prompt="hi you")


async def failure(call: object) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (call if hasattr(call, "__await__") else _drained(call))
    return caught.value


async def _drained(call: Any) -> None:
    async for _ in call:
        pass


async def test_stream_has_sources_then_deltas_then_the_end(
    served: Served, graph: FakeGraph
) -> None:
    graph.stored["docs"] = {"d1": Document(id="d1", text="Ray Serve", title="Ray")}
    ask = dify_pb2.TextRequest(prompt="hi you", retrieval=dify_pb2.Retrieval(collection="docs"))
    events = [one async for one in served.stub.StreamText(ask, metadata=BEARER)]
    kinds = [one.WhichOneof("event") for one in events]
    assert kinds == ["sources", "delta", "delta", "delta", "done"]
    assert events[0].sources.sources[0].text == "Ray Serve"
    assert "".join(one.delta.text for one in events) == "echo: hi you"
    assert events[-1].done.usage.total_tokens == 9


@pytest.mark.parametrize(("method", "said"), [("GenerateText", True), ("StreamText", False)])
async def test_stream_cannot_contradict_the_method(served: Served, method: str, said: bool) -> None:
    ask = dify_pb2.TextRequest(prompt="x", stream=said)
    error = await failure(getattr(served.stub, method)(ask, metadata=BEARER))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert dict(error.trailing_metadata())["x-error-param"] == "stream"


async def test_stream_that_fails_late_ends_with_the_errors_code(
    served: Served, graph: FakeGraph
) -> None:
    graph.error, graph.error_after = EngineFailed("the replica is gone"), 2
    call = served.stub.StreamText(ASK, metadata=BEARER)
    events = aiter(call)
    found = [await anext(events), await anext(events)]
    assert [one.delta.text for one in found] == ["echo:", " hi"]
    error = await failure(anext(events))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "the replica is gone")
    assert dict(error.trailing_metadata())["x-error-code"] == "engine_failed"


async def test_caller_that_leaves_ends_the_work(
    build: Build, graph: FakeGraph, serving: Serving
) -> None:
    graph.delay_s = 30
    audit = Recorder()
    async with serving(build(audit=audit)) as served:
        for method in (served.stub.GenerateText, served.stub.StreamText):
            call = method(ASK, metadata=BEARER)
            await until(lambda: graph.num_running == 1)
            call.cancel()
            await until(lambda: graph.num_running == 0)
        await until(lambda: len(audit.records) == 2)
        assert {one.status for one in audit.records} == {499}


async def test_deadline_of_the_call_ends_the_work(
    build: Build, graph: FakeGraph, serving: Serving
) -> None:
    graph.delay_s = 30
    audit = Recorder()
    async with serving(build(audit=audit)) as served:
        error = await failure(served.stub.GenerateText(ASK, metadata=BEARER, timeout=0.5))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: graph.num_running == 0)
        await until(lambda: len(audit.records) == 1)


async def test_our_own_deadline_ends_the_call(
    build: Build, graph: FakeGraph, serving: Serving
) -> None:
    graph.delay_s = 30
    async with serving(build(request_timeout_s=0.2)) as served:
        error = await failure(served.stub.GenerateText(ASK, metadata=BEARER))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert dict(error.trailing_metadata())["x-error-code"] == "deadline_exceeded"


async def test_stream_that_nobody_reads_waits_and_then_ends(
    build: Build, graph: FakeGraph, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S8: what is not read neither grows nor holds a place."""
    monkeypatch.setattr(rpc_server, "WRITE_TIMEOUT_S", 1.0)
    num_said = 0

    class Words(list[str]):
        def __iter__(self):  # type: ignore[no-untyped-def]
            nonlocal num_said
            for _ in range(10_000):
                num_said += 1
                yield "x" * 100_000

        def __len__(self) -> int:
            return 10_000

    graph.words = Words()
    audit = Recorder()
    async with serving(build(audit=audit)) as served:
        call = served.stub.StreamText(ASK, metadata=BEARER)
        assert (await call.read()).delta.text
        await until(lambda: graph.num_running == 0)
        assert num_said < 1000  # of a gigabyte
        await until(lambda: len(audit.records) == 1)
        call.cancel()


async def test_key_is_checked_before_the_message_is_read(served: Served) -> None:
    never = asyncio.Event()

    async def slow():  # type: ignore[no-untyped-def]
        await never.wait()
        yield b""

    method = served.channel.stream_unary("/ragserve.v1.DifyService/GenerateText")
    error = await failure(method(slow()))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_message_over_the_limit_is_refused(build: Build, serving: Serving) -> None:
    audit = Recorder()
    async with serving(build(audit=audit), max_message_bytes=10_000) as served:
        ask = dify_pb2.TextRequest(prompt="x" * 20_000)
        error = await failure(served.stub.GenerateText(ask, metadata=BEARER))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await until(lambda: len(audit.records) == 1)
    assert audit.records[0].status == 499


async def test_call_without_a_message_is_refused(served: Served) -> None:
    async def nothing() -> AsyncIterator[bytes]:
        for message in ():
            yield message

    for name in ("GenerateText", "StreamText"):
        method = served.channel.stream_stream(f"/ragserve.v1.DifyService/{name}")
        error = await failure(method(nothing(), metadata=BEARER))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error.details() == "a call carries one message"


async def test_compressed_message_is_refused(served: Served) -> None:
    bomb = dify_pb2.TextRequest(prompt="x" * 10_000_000)
    call = served.stub.GenerateText(bomb, metadata=BEARER, compression=grpc.Compression.Gzip)
    assert (await failure(call)).code() is grpc.StatusCode.UNIMPLEMENTED


async def test_health_needs_no_key_and_says_what_is_missing(
    served: Served, graph: FakeGraph
) -> None:
    stub = HealthStub(served.channel)
    for service in ("", "ragserve.v1.DifyService"):
        answer = await stub.Check(HealthCheckRequest(service=service))
        assert answer.status == HealthCheckResponse.SERVING
    error = await failure(stub.Check(HealthCheckRequest(service="nope")))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    error = await failure(stub.Watch(HealthCheckRequest()))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_health_says_when_a_part_does_not_answer(served: Served, graph: FakeGraph) -> None:
    graph.parts = {"generator": False}
    answer = await HealthStub(served.channel).Check(HealthCheckRequest())
    assert answer.status == HealthCheckResponse.NOT_SERVING


async def test_unknown_method_needs_a_key_and_is_written_down(
    build: Build, serving: Serving
) -> None:
    audit = Recorder()
    async with serving(build(audit=audit)) as served:
        method = served.channel.unary_unary("/ragserve.v1.DifyService/Nope")
        assert (await failure(method(b""))).code() is grpc.StatusCode.UNAUTHENTICATED
        error = await failure(method(b"", metadata=BEARER))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert [one.status for one in audit.records] == [401, 404]


async def listed(served: Served) -> list[str]:
    from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
    from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

    ask = ServerReflectionRequest(list_services="")
    call = ServerReflectionStub(served.channel).ServerReflectionInfo(iter([ask]))
    [answer] = [one async for one in call]
    return sorted(one.name for one in answer.list_services_response.service)


async def test_reflection_is_off_unless_a_setting_turns_it_on(
    build: Build, serving: Serving
) -> None:
    async with serving(build()) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await listed(served)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    async with serving(build(), reflection=True) as served:
        names = await listed(served)
    assert names == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "ragserve.v1.DifyService",
    ]


async def test_only_our_edge_says_who_asks(build: Build, serving: Serving) -> None:
    audit = Recorder()
    forged = (*BEARER, ("x-ragserve-peer", "x 10.9.9.9"), ("x-forwarded-for", "10.9.9.9"))
    async with serving(build(audit=audit)) as served:
        await served.stub.GenerateText(ASK, metadata=forged)
    assert audit.records[0].address == "127.0.0.1"


async def test_server_ends_what_runs_before_it_stops(
    build: Build, graph: FakeGraph, serving: Serving
) -> None:
    graph.delay_s = 0.3
    async with serving(build()) as served:
        call = asyncio.ensure_future(_answer(served))
        await until(lambda: graph.num_running == 1)
        await served.server.stop(10)
        assert (await call).output == "echo: hi you"


async def _answer(served: Served):  # type: ignore[no-untyped-def]
    return await served.stub.GenerateText(ASK, metadata=BEARER)


async def test_metadata_that_an_http_request_would_carry_counts(served: Served) -> None:
    metadata = (*BEARER, ("x-cache", "sometimes"))
    error = await failure(served.stub.GenerateText(ASK, metadata=metadata))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert dict(error.trailing_metadata())["x-error-param"] == "x-cache"
