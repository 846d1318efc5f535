"""gRPC through the edge: plain and over TLS, by the replicas it knows, refused by statuses."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from cluster.certificates import KeyPair, trial_pair
from cluster.edge import Edge, EdgeOptions, EdgeTls
from cluster.errors import OperatorError
from cluster.ports import LOOPBACK, check_free, free_ports
from deployments.config import RpcArgs
from deployments.ingress.proto import dify_pb2, dify_pb2_grpc
from deployments.ingress.proto.media import PROTOBUF
from deployments.ingress.rpc.server import RpcServer
from tests.unit.cluster.conftest import SECRET, edge_options
from tests.unit.cluster.test_edge import wait_for_edge

ASK = dify_pb2.TextRequest(prompt="x")
FORGED = (
    ("authorization", "Bearer k"),
    ("x-ragserve-peer", f"{SECRET} 10.1.2.3"),
    ("x-request-id", "forged"),
    ("x-forwarded-for", "10.1.2.3"),
)


class Echo:
    """An application that answers with the headers that reached it."""

    def __init__(self) -> None:
        self.num_gone = 0
        self.is_slow = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if self.is_slow:
            assert (await receive())["type"] == "http.disconnect"
            self.num_gone += 1
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        body = dify_pb2.TextResponse(output=repr(headers)).SerializeToString()
        own = [(b"content-type", PROTOBUF.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": own})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def replica(echo: Echo) -> AsyncIterator[RpcServer]:
    server = RpcServer(echo, RpcArgs())
    await server.start()
    yield server
    await server.stop(1)


@pytest.fixture
def options(tmp_path: Path) -> EdgeOptions:
    return replace(edge_options(tmp_path, 1), grpc_port=free_ports(1)[0])


@pytest.fixture
async def edge(options: EdgeOptions) -> AsyncIterator[Edge]:
    edge = Edge(options, os.environ)
    edge.start()
    try:
        await wait_for_edge(options.grpc_port)
        yield edge
    finally:
        await asyncio.to_thread(edge.stop)


def plain(options: EdgeOptions) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"{LOOPBACK}:{options.grpc_port}")


async def code_of(call: Any) -> tuple[grpc.StatusCode, str]:
    return await call.code(), await call.details()


async def test_calls_reach_the_replicas_that_the_edge_knows(
    edge: Edge, options: EdgeOptions, replica: RpcServer
) -> None:
    async with plain(options) as channel:
        stub = dify_pb2_grpc.DifyServiceStub(channel)
        found = await code_of(stub.GenerateText(ASK))
        assert found == (
            grpc.StatusCode.UNAVAILABLE,
            "the server is starting, restarting or full; retry",
        )
        edge.targets.sync(None, [(LOOPBACK, replica.port)])
        headers = eval((await stub.GenerateText(ASK, metadata=FORGED)).output)
        edge.targets.sync(None, [])
        assert (await code_of(stub.GenerateText(ASK)))[0] is grpc.StatusCode.UNAVAILABLE
    assert headers["authorization"] == "Bearer k"
    assert headers["x-ragserve-peer"] == f"{SECRET} {LOOPBACK}"
    assert headers["x-ragserve-forwarded"] == "10.1.2.3"
    assert headers["x-request-id"].startswith("req_")
    assert "x-forwarded-for" not in headers


async def test_what_the_edge_refuses_is_a_status(
    edge: Edge, options: EdgeOptions, replica: RpcServer
) -> None:
    edge.targets.sync(None, [(LOOPBACK, replica.port)])
    async with plain(options) as channel:
        stub = dify_pb2_grpc.DifyServiceStub(channel)
        big = dify_pb2.TextRequest(prompt="x" * 100_000)
        found = await code_of(stub.GenerateText(big, compression=grpc.Compression.Gzip))
        assert found == (grpc.StatusCode.UNIMPLEMENTED, "compressed messages are not accepted")
        huge = dify_pb2.TextRequest(prompt="x" * (17 << 20))
        assert (await code_of(stub.GenerateText(huge)))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await stub.GenerateText(ASK)).output


async def test_caller_that_leaves_is_passed_on(
    edge: Edge, options: EdgeOptions, replica: RpcServer, echo: Echo
) -> None:
    edge.targets.sync(None, [(LOOPBACK, replica.port)])
    echo.is_slow = True
    async with plain(options) as channel:
        call = dify_pb2_grpc.DifyServiceStub(channel).GenerateText(ASK)
        await asyncio.sleep(0.5)
        assert echo.num_gone == 0
        call.cancel()
        async with asyncio.timeout(5):
            while not echo.num_gone:
                await asyncio.sleep(0.02)


async def test_plain_http_is_no_call(edge: Edge, options: EdgeOptions) -> None:
    reader, writer = await asyncio.open_connection(LOOPBACK, options.grpc_port)
    writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
    assert b" 200 " not in await reader.read()
    writer.close()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return trial_pair(tmp_path_factory.mktemp("pair"), LOOPBACK)


@pytest.mark.parametrize("is_shown", [True, False])
async def test_calls_over_tls_show_certificates_where_they_must(
    options: EdgeOptions, replica: RpcServer, pair: KeyPair, is_shown: bool
) -> None:
    http, port = free_ports(2)
    tls = EdgeTls(pair, http, grpc_port=port, client_ca=pair.certificate, is_redirected=True)
    edge = Edge(replace(options, tls=tls), os.environ)
    edge.start()
    own = [pair.key.read_bytes(), pair.certificate.read_bytes()] if is_shown else [None, None]
    credentials = grpc.ssl_channel_credentials(pair.certificate.read_bytes(), *own)
    try:
        await wait_for_edge(port)
        edge.targets.sync(None, [(LOOPBACK, replica.port)])
        async with grpc.aio.secure_channel(f"{LOOPBACK}:{port}", credentials) as channel:
            call = dify_pb2_grpc.DifyServiceStub(channel).GenerateText(ASK)
            code, _ = await code_of(call)
    finally:
        await asyncio.to_thread(edge.stop)
    assert code is (grpc.StatusCode.OK if is_shown else grpc.StatusCode.UNAVAILABLE)


async def test_edge_without_grpc_listens_on_nothing_for_it(options: EdgeOptions) -> None:
    edge = Edge(replace(options, grpc_port=0), os.environ)
    edge.start()
    try:
        await wait_for_edge(options.port)
        with pytest.raises(OSError, match="refused|failed"):
            await asyncio.open_connection(LOOPBACK, options.grpc_port)
    finally:
        await asyncio.to_thread(edge.stop)


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
MAX_CONCURRENT_STREAMS = 3


async def settings_of(port: int) -> dict[int, int]:
    """Return what a server of HTTP/2 says first: its settings, by their numbers."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    writer.write(PREFACE)
    head = await reader.readexactly(9)
    assert head[3] == 4  # SETTINGS
    content = await reader.readexactly(int.from_bytes(head[:3]))
    writer.close()
    pairs = [content[at : at + 6] for at in range(0, len(content), 6)]
    return {int.from_bytes(one[:2]): int.from_bytes(one[2:]) for one in pairs}


async def test_connection_has_a_hundred_calls_at_most(
    edge: Edge, options: EdgeOptions, replica: RpcServer
) -> None:
    """A9: floods of streams."""
    for port in (options.grpc_port, replica.port):
        assert (await settings_of(port))[MAX_CONCURRENT_STREAMS] == 100


async def test_message_that_does_not_arrive_is_waited_for_ten_seconds(
    edge: Edge, options: EdgeOptions, replica: RpcServer
) -> None:
    """A9: slow bodies."""
    edge.targets.sync(None, [(LOOPBACK, replica.port)])

    async def never() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    async with plain(options) as channel:
        method = channel.stream_unary("/ragserve.v1.DifyService/GenerateText")
        found = await code_of(method(never()))
    assert found == (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "the request did not arrive completely in time",
    )


def test_port_that_is_taken_is_named_with_its_setting() -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        with pytest.raises(OperatorError, match="RAGSERVE_GRPC_PORT"):
            check_free(LOOPBACK, taken.getsockname()[1], "RAGSERVE_GRPC_PORT")
