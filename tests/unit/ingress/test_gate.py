"""The outermost layer: keys, limits, ids, headers, and clients that leave."""

import asyncio
import json
import time
from collections.abc import AsyncIterator

import httpx
import pytest

from deployments.errors import StoreUnavailable
from deployments.ingress.metrics import Metrics
from tests.unit.ingress.conftest import AUTH, OPERATOR, Build, Served, in_process
from tests.unit.ingress.fake_graph import FakeGraph

ASK = {"model": "fake-model", "messages": [{"role": "user", "content": "hi"}]}
PROMPT = {"prompt": "hi"}


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer ", "Basic rk-test", "rk-test", "Bearer x" * 100]
)
async def test_gate_refuses_what_is_no_key(client: httpx.AsyncClient, authorization: str) -> None:
    headers = {"authorization": authorization}
    response = await client.post("/v1/inference", json=PROMPT, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert response.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize(
    "path", ["/", "/v1/nope", "/v1/metrics", "/v1/models", "/docs/../v1/models"]
)
async def test_gate_hides_routes_without_a_key(client: httpx.AsyncClient, path: str) -> None:
    del client.headers["authorization"]
    assert (await client.get(path)).status_code == 401


@pytest.mark.parametrize("path", ["/v1/health", "/v1/health/ready", "/docs", "/openapi.json"])
async def test_gate_leaves_public_routes_open(client: httpx.AsyncClient, path: str) -> None:
    del client.headers["authorization"]
    assert (await client.get(path)).status_code == 200


async def test_gate_refuses_two_authorization_headers(client: httpx.AsyncClient) -> None:
    headers = [("authorization", "Bearer rk-test"), ("authorization", "Bearer other")]
    client.headers.pop("authorization")
    assert (await client.get("/v1/models", headers=headers)).status_code == 401


async def test_gate_gives_every_request_its_own_id(client: httpx.AsyncClient) -> None:
    sent = {"x-request-id": "req_mine"}
    first = await client.get("/v1/models", headers=sent)
    second = await client.get("/v1/nope", headers=sent)
    ids = {first.headers["x-request-id"], second.headers["x-request-id"]}
    assert len(ids) == 2
    assert all(one.startswith("req_") and len(one) == 36 for one in ids)
    assert second.json()["error"]["request_id"] == second.headers["x-request-id"]


async def test_gate_sets_safe_headers(client: httpx.AsyncClient) -> None:
    headers = (await client.get("/v1/models")).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "default-src 'none'" in headers["content-security-policy"]


async def test_gate_unknown_route_and_method_have_the_error_object(
    client: httpx.AsyncClient,
) -> None:
    missing = await client.get("/v1/nope")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    wrong = await client.put("/v1/models")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "GET"


async def test_gate_hides_unexpected_errors(
    client: httpx.AsyncClient, graph: FakeGraph, caplog: pytest.LogCaptureFixture
) -> None:
    graph.error = RuntimeError("secret content")
    response = await client.post("/v1/inference", json=PROMPT)
    assert response.status_code == 500
    assert response.json()["error"]["message"] == "internal error"
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text


async def test_gate_passes_a_key_store_failure_on(build: Build, graph: FakeGraph) -> None:
    class BrokenKeys:
        async def verify(self, bearer: str) -> object:
            raise StoreUnavailable("the database does not answer")

    app = build()
    app._keys._keys = BrokenKeys()
    async with in_process(app) as client:
        response = await client.get("/v1/models")
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")


async def test_gate_refuses_more_requests_than_it_may_hold(build: Build, graph: FakeGraph) -> None:
    graph.delay_s = 0.2
    async with in_process(build(max_requests_in_flight=2)) as client:
        calls = [client.post("/v1/inference", json=PROMPT) for _ in range(3)]
        responses = await asyncio.gather(*calls)
        assert sorted(r.status_code for r in responses) == [200, 200, 503]
        refused = next(r for r in responses if r.status_code == 503)
        assert refused.json()["error"]["code"] == "overloaded"
        assert int(refused.headers["retry-after"]) > 0
        assert (await client.get("/v1/health")).status_code == 200
        assert (await client.post("/v1/inference", json=PROMPT)).status_code == 200


async def test_body_over_the_limit_is_refused_by_its_length(build: Build) -> None:
    async with in_process(build(max_body_bytes=1024)) as client:
        fits = await client.post("/v1/inference", json={"prompt": "x" * 900})
        response = await client.post("/v1/inference", json={"prompt": "x" * 2000})
    assert fits.status_code == 200
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "payload_too_large"


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_body_over_the_limit_is_refused_before_the_rest_is_sent(
    build: Build, served: Served, is_chunked: bool
) -> None:
    framing = "transfer-encoding: chunked" if is_chunked else "content-length: 100000000"
    head = f"POST /v1/inference HTTP/1.1\r\nhost: x\r\nauthorization: {AUTH['authorization']}"
    async with served(build(max_body_bytes=100_000)) as client:
        host, port = client.base_url.host, client.base_url.port
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(f"{head}\r\n{framing}\r\n\r\n".encode())
        if is_chunked:
            writer.write(b"10000\r\n" + bytes(65_536) + b"\r\n")
            writer.write(b"10000\r\n" + bytes(65_536) + b"\r\n")
        async with asyncio.timeout(5):
            assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
        writer.close()
        await writer.wait_closed()


async def test_body_of_100_mb_gets_its_answer(build: Build, served: Served) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield bytes(1_000_000)

    async with served(build(max_body_bytes=100_000)) as client:
        response = await client.post("/v1/inference", content=body())
        assert response.status_code == 413
        assert (await client.get("/v1/models")).status_code == 200


async def test_body_memory_is_bounded(build: Build, served: Served) -> None:
    hold = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b" " * 1000
        await hold.wait()
        yield json.dumps(PROMPT).encode()

    app = build(max_body_bytes=1024)
    async with served(app) as client:
        calls = [
            asyncio.create_task(client.post("/v1/inference", content=slow())) for _ in range(8)
        ]
        while app._bodies._room > 1000:
            await asyncio.sleep(0.01)
        refused = await client.post("/v1/inference", json={"prompt": "x" * 900})
        assert refused.status_code == 503
        hold.set()
        responses = await asyncio.gather(*calls)
        assert [r.status_code for r in responses] == [200] * 8
        assert app._bodies._room == 8 * 1024


async def test_body_of_a_public_route_is_not_kept(build: Build) -> None:
    async with in_process(build(max_body_bytes=1024)) as client:
        response = await client.request("GET", "/v1/health", content=b"x" * 10_000)
    assert response.status_code == 200


async def test_body_that_is_compressed_is_refused(client: httpx.AsyncClient) -> None:
    headers = {"content-encoding": "gzip"}
    response = await client.post("/v1/inference", content=b"\x1f\x8b", headers=headers)
    assert response.status_code == 400


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
async def test_body_needs_no_json_content_type(
    client: httpx.AsyncClient, content_type: str | None
) -> None:
    headers = {"content-type": content_type} if content_type else {}
    content = json.dumps(PROMPT).encode()
    response = await client.post("/v1/inference", content=content, headers=headers)
    assert response.json()["output"] == "echo: hi"


async def _until(graph: FakeGraph, num_running: int) -> float:
    started = time.monotonic()
    while graph.num_running != num_running:
        assert time.monotonic() - started < 5
        await asyncio.sleep(0.005)
    return time.monotonic() - started


async def test_disconnect_stops_a_request_that_is_not_streamed(
    build: Build, served: Served, graph: FakeGraph, metrics: Metrics
) -> None:
    graph.delay_s = 30
    async with served(build()) as client:
        call = asyncio.create_task(client.post("/v1/inference", json=PROMPT))
        await _until(graph, 1)
        call.cancel()
        assert await _until(graph, 0) < 1
        await asyncio.sleep(0.05)
        assert b'status="4xx"' in metrics.text()
        assert b"ragserve_requests_in_flight 0.0" in metrics.text()


@pytest.mark.parametrize("is_endless", [True, False])
async def test_a10_disconnect_stops_a_stream(
    build: Build, served: Served, graph: FakeGraph, is_endless: bool
) -> None:
    graph.words = ["word"] * (100_000 if is_endless else 2)
    graph.delay_s = 0.001 if is_endless else 30
    async with served(build()) as client:
        call = {"url": "/v1/chat/completions", "json": {**ASK, "stream": True}}
        if is_endless:
            async with client.stream("POST", **call) as response:
                async for _ in response.aiter_bytes():
                    break
        else:
            waiting = asyncio.create_task(client.post(**call))
            await _until(graph, 1)
            waiting.cancel()
        assert await _until(graph, 0) < 1
    assert graph.num_closed == 1


async def test_deadline_of_a_request_that_is_not_streamed(build: Build, graph: FakeGraph) -> None:
    graph.delay_s = 30
    async with in_process(build(request_timeout_s=0.1)) as client:
        response = await client.post("/v1/inference", json=PROMPT)
        streamed = await client.post("/v1/inference", json={**PROMPT, "stream": True})
    assert (response.status_code, streamed.status_code) == (504, 504)
    assert response.json()["error"]["code"] == "deadline_exceeded"
    assert graph.num_running == 0


async def test_a18_metrics_have_closed_labels(client: httpx.AsyncClient) -> None:
    for number in range(20):
        await client.get(f"/v1/nope-{number}")
        await client.get(f"/v1/models/nope-{number}")
        await client.request(f"M{number}", "/v1/models")
    await client.post("/v1/inference", json={**PROMPT, "stream": True})
    response = await client.get("/v1/metrics", headers=OPERATOR)
    assert response.headers["content-type"].startswith("text/plain; version=")
    text = response.text
    assert "nope-" not in text
    assert 'route="/v1/models/{model:path}"' in text
    assert 'ragserve_requests_total{method="GET",route="other",status="4xx"} 20.0' in text
    assert 'ragserve_time_to_first_delta_seconds_count{route="/v1/inference"} 1.0' in text
    assert 'ragserve_tokens_total{kind="completion"} 3.0' in text


async def test_gate_survives_a_client_that_sends_nothing(build: Build, served: Served) -> None:
    async with served(build()) as client:
        host, port = client.base_url.host, client.base_url.port
        _, writer = await asyncio.open_connection(host, port)
        head = f"POST /v1/inference HTTP/1.1\r\nhost: x\r\nauthorization: {AUTH['authorization']}"
        writer.write(f"{head}\r\ncontent-length: 10\r\n\r\n12".encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert (await client.get("/v1/models")).status_code == 200
