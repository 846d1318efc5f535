"""The shipped HAProxy configuration, run as `up` runs it, in front of a real server."""

import asyncio
import json
import os
import signal
import socket
import stat
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from cluster.edge import Edge
from cluster.edge_errors import EDGE_ERRORS
from cluster.errors import OperatorError
from cluster.ports import LOOPBACK, free_ports
from tests.unit.cluster.conftest import MAX_BODY_BYTES, SECRET, edge_options
from tests.unit.cluster.edge_backend import CHUNK_PERIOD_S, NUM_CHUNKS, Backend

STEERING = {
    "x-request-timeout-seconds": "0",
    "x_request_timeout_seconds": "0",
    "X-Request-Disconnect-Disabled": "?1",
    "serve_multiplexed_model_id": "m",
    "Serve-Multiplexed-Model-Id": "m",
    "serve-multiplexed_model_id": "m",
    "ray_serve_multiplexed_model_id": "m",
    "X-Session-Id": "s",
    "X-Serve-Router-Hint": "r",
    "X-Request-Id": "forged",
    "X-Forwarded-For": "10.1.2.3",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "X-Real-Ip": "10.1.2.3",
    "Forwarded": "for=10.1.2.3",
    "X-Ragserve-Peer": f"{SECRET} 10.1.2.3",
    "x_ragserve_peer": f"{SECRET} 10.1.2.3",
    "X-Ragserve-Forwarded": "10.1.2.3",
}


def is_error_object(body: bytes, code: str) -> bool:
    error = json.loads(body)["error"]
    return error["code"] == code and set(error) == {
        "message",
        "type",
        "code",
        "param",
        "request_id",
    }


async def wait_for_edge(port: int) -> None:
    deadline = time.monotonic() + 5
    while True:
        try:
            _, writer = await asyncio.open_connection(LOOPBACK, port)
        except OSError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return


async def raw(port: int, head: bytes) -> bytes:
    await wait_for_edge(port)
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    writer.write(head)
    answer = await reader.read()
    writer.close()
    return answer


async def test_a2_edge_strips_headers_that_steer_serve(edge_port: int) -> None:
    await wait_for_edge(edge_port)
    async with httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{edge_port}") as client:
        answer = await client.get("/echo", headers={**STEERING, "X-Kept": "yes"})
    arrived = dict(answer.json()["headers"])
    assert arrived["x-kept"] == "yes"
    assert arrived.pop("x-ragserve-peer") == f"{SECRET} {LOOPBACK}"
    assert arrived.pop("x-ragserve-forwarded") == "10.1.2.3"
    assert arrived.pop("x-forwarded-for") == LOOPBACK
    assert arrived.pop("x-request-id").startswith("req_")
    assert not {name.lower() for name in STEERING} & set(arrived)


async def test_a10_edge_passes_an_abort_on_within_two_seconds(
    edge_port: int, backend: Backend
) -> None:
    await wait_for_edge(edge_port)
    backend.aborted_after_s.clear()
    _, writer = await asyncio.open_connection(LOOPBACK, edge_port)
    writer.write(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n")
    await asyncio.sleep(0.5)
    assert not backend.aborted_after_s
    writer.close()
    await asyncio.sleep(1.5)
    assert len(backend.aborted_after_s) == 1


async def test_b3_edge_refuses_too_many_headers(edge_port: int) -> None:
    lines = b"".join(b"x-h%d: 1\r\n" % number for number in range(101))
    answer = await raw(edge_port, b"GET /echo HTTP/1.1\r\nhost: x\r\n" + lines + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")


async def test_b3_edge_refuses_a_head_over_31_kib(edge_port: int) -> None:
    big = b"x-big: " + b"a" * 33_000
    answer = await raw(edge_port, b"GET /echo HTTP/1.1\r\nhost: x\r\n" + big + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")


async def test_a9_edge_ends_slow_heads_and_slow_bodies_with_408(edge_port: int) -> None:
    started = time.monotonic()
    slow_head = raw(edge_port, b"GET /echo HTTP/1.1\r\nhost:")
    slow_body = raw(edge_port, b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
    slow_chunks = raw(
        edge_port, b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{"
    )
    answers = await asyncio.gather(slow_head, slow_body, slow_chunks)
    assert time.monotonic() - started < 12
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 408 ")
    for answer in answers[1:]:
        assert is_error_object(answer.split(b"\r\n\r\n", 1)[1], "request_timeout")


async def test_edge_does_not_hold_chunks_of_a_stream_back(edge_port: int) -> None:
    await wait_for_edge(edge_port)
    arrivals = []
    url = f"http://{LOOPBACK}:{edge_port}/stream"
    async with httpx.AsyncClient() as client, client.stream("GET", url) as answer:
        async for _ in answer.aiter_raw():
            arrivals.append(time.monotonic())
    assert len(arrivals) == NUM_CHUNKS
    gaps = [after - before for before, after in zip(arrivals, arrivals[1:], strict=False)]
    assert min(gaps) > CHUNK_PERIOD_S / 2


async def test_edge_refuses_a_body_over_the_cap(edge_port: int, backend: Backend) -> None:
    await wait_for_edge(edge_port)
    url = f"http://{LOOPBACK}:{edge_port}/too-large"
    async with httpx.AsyncClient() as client:
        answer = await client.post(url, content=b"a" * (MAX_BODY_BYTES + 1))
    assert answer.status_code == 413
    assert is_error_object(answer.content, "payload_too_large")
    assert "/too-large" not in backend.paths


async def test_edge_passes_a_body_of_exactly_the_cap(edge_port: int) -> None:
    await wait_for_edge(edge_port)
    async with httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{edge_port}") as client:
        answer = await client.post("/echo", content=b"a" * MAX_BODY_BYTES)
    assert answer.json()["num_bytes"] == MAX_BODY_BYTES


@pytest.mark.parametrize(
    "path", ["/-/healthz", "/-/routes", "//-/routes", "/%2d/routes", "/%2D%2Froutes"]
)
async def test_edge_hides_the_pages_of_serve(edge_port: int, backend: Backend, path: str) -> None:
    backend.paths.clear()
    request = f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    answer = await raw(edge_port, request.encode())
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert not backend.paths


async def test_edge_keeps_the_connection_for_the_next_request(edge_port: int) -> None:
    await wait_for_edge(edge_port)
    reader, writer = await asyncio.open_connection(LOOPBACK, edge_port)
    for _ in range(3):
        writer.write(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert head.startswith(b"HTTP/1.1 200 ")
        body = await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 5)
        assert b'"num_bytes": 2' in body
    writer.close()


async def test_edge_answers_503_with_retry_after_when_serve_is_away(tmp_path: Path) -> None:
    options = edge_options(tmp_path, free_ports(1)[0])
    edge = Edge(options, os.environ)
    edge.start()
    try:
        await wait_for_edge(options.port)
        async with httpx.AsyncClient(timeout=10) as client:
            answer = await client.get(f"http://{LOOPBACK}:{options.port}/echo")
    finally:
        edge.stop()
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert is_error_object(answer.content, "overloaded")


async def test_edge_is_started_again_after_it_died(tmp_path: Path, backend: Backend) -> None:
    options = edge_options(tmp_path, backend.port)
    edge = Edge(options, os.environ)
    edge.start()
    try:
        await wait_for_edge(options.port)
        assert edge.ensure() is False
        first = edge.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while not edge.ensure():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        assert edge.pid != first
        await wait_for_edge(options.port)
    finally:
        edge.stop()


async def test_edge_opens_its_admin_socket_to_nobody_else(
    edge_port: int, edge_folder: Path
) -> None:
    await wait_for_edge(edge_port)
    assert stat.S_IMODE((edge_folder / "admin.sock").stat().st_mode) == 0o600


def test_edge_refuses_a_configuration_it_cannot_run(tmp_path: Path) -> None:
    options = edge_options(tmp_path, 1)
    edge = Edge(replace(options, host="not an address"), os.environ)
    with pytest.raises(OperatorError, match="configuration"):
        edge.start()
    assert edge.pid is None


def test_error_files_fit_their_announced_length(edge_port: int, edge_folder: Path) -> None:
    for error in EDGE_ERRORS:
        head, body = (edge_folder / f"{error.status}.http").read_bytes().split(b"\r\n\r\n", 1)
        assert f"content-length: {len(body)}".encode() in head
        assert is_error_object(body, error.code)


def test_edge_listens_on_the_given_address_only(edge_port: int) -> None:
    own = socket.gethostbyname(socket.gethostname())
    if own.startswith("127."):
        pytest.skip("this host has no address besides loopback")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((own, edge_port), timeout=2)
