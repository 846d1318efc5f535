"""What requests take of limits, how that is answered, and what comes back."""

import asyncio
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from deployments.config import IngressArgs
from deployments.ingress.metrics import Metrics
from deployments.ingress.rate_headers import duration
from deployments.stores.limits.admission import Budget, Cost
from deployments.stores.limits.sqlite_limits import SqliteLimits
from deployments.types.access import Limits
from tests.unit.ingress.conftest import (
    AUTH,
    KEY,
    OPERATOR,
    Build,
    Served,
    in_process,
)
from tests.unit.ingress.fake_graph import FakeGraph

CHAT = "/v1/chat/completions"
ASK = {"model": "fake-model", "messages": [{"role": "user", "content": "four tokens here"}]}
SMALL = {**ASK, "max_tokens": 10}
WIDE = 1_000_000


def spent(limits: SqliteLimits, subject: str = "key:key_1") -> int:
    """Return how many tokens count for a subject."""
    budget = Budget(subject, Limits(tokens_per_minute=WIDE))
    gauge = limits.take([budget], Cost()).standing.tokens
    assert gauge is not None
    return WIDE - gauge.remaining


def leases(limits: SqliteLimits) -> int:
    query = "SELECT count(*) FROM lease"
    return limits._file.connection().execute(query).fetchone()[0]


async def test_chat_beyond_the_requests_is_refused_with_headers(
    build: Build, metrics: Metrics
) -> None:
    async with in_process(build(key_limits={"requests_per_minute": 2})) as client:
        first, second, third = [await client.post(CHAT, json=SMALL) for _ in range(3)]
        fourth = await client.get("/v1/models")
    assert [first.status_code, second.status_code, third.status_code] == [200, 200, 429]
    assert fourth.status_code == 429
    left = [r.headers["x-ratelimit-remaining-requests"] for r in (first, second, third)]
    assert left == ["1", "0", "0"]
    assert {r.headers["x-ratelimit-limit-requests"] for r in (first, second, third)} == {"2"}
    assert third.headers["x-ratelimit-reset-requests"] in {"1m0s", "1m1s"}
    assert 1 <= int(third.headers["retry-after"]) <= 61
    error = third.json()["error"]
    assert (error["code"], error["type"]) == ("rate_limit_exceeded", "rate_limit_error")
    assert error["param"] == "limits.requests_per_minute"
    assert b'ragserve_limited_total{limit="requests_per_minute"} 2.0' in metrics.text()


async def test_chat_reserves_and_then_counts_what_it_took(
    build: Build, limits: SqliteLimits
) -> None:
    async with in_process(build(key_limits={"tokens_per_minute": 100})) as client:
        response = await client.post(CHAT, json=SMALL)
        used = response.json()["usage"]["total_tokens"]
        assert response.headers["x-ratelimit-limit-tokens"] == "100"
        assert response.headers["x-ratelimit-remaining-tokens"] == "86"  # 4 and 10 of 100
        assert spent(limits) == used
        assert 0 < used < 14


async def test_stream_counts_what_it_took(build: Build, limits: SqliteLimits) -> None:
    streamed = {**SMALL, "stream": True, "stream_options": {"include_usage": True}}
    async with in_process(build(key_limits={"tokens_per_minute": 100})) as client:
        whole = (await client.post(CHAT, json=SMALL)).json()["usage"]["total_tokens"]
        response = await client.post(CHAT, json=streamed)
    assert response.headers["x-ratelimit-remaining-tokens"] == str(100 - whole - 14)
    assert spent(limits) == 2 * whole


async def test_stream_that_is_left_costs_what_it_reserved(
    build: Build, served: Served, graph: FakeGraph, limits: SqliteLimits
) -> None:
    graph.words = ["word"] * 100_000
    graph.delay_s = 0.001
    app = build(key_limits={"tokens_per_minute": 1000, "max_concurrent": 1})
    async with served(app) as client:
        async with client.stream("POST", CHAT, json={**SMALL, "stream": True}) as response:
            async for _ in response.aiter_bytes():
                break
        async with asyncio.timeout(5):
            while leases(limits):
                await asyncio.sleep(0.01)
    assert spent(limits) == 14


async def test_chat_that_fails_costs_no_tokens(
    build: Build, graph: FakeGraph, limits: SqliteLimits
) -> None:
    graph.error = RuntimeError("broken")
    async with in_process(build(key_limits={"tokens_per_minute": 100})) as client:
        assert (await client.post(CHAT, json=SMALL)).status_code == 500
    assert spent(limits) == 0


async def test_chat_that_does_not_fit_now_is_refused_until_it_does(
    build: Build, graph: FakeGraph, limits: SqliteLimits
) -> None:
    async with in_process(build(key_limits={"tokens_per_minute": 30})) as client:
        limits.take([Budget("key:key_1", Limits(tokens_per_minute=30))], Cost(tokens=20))
        refused = await client.post(CHAT, json=SMALL)
        fits = await client.post(CHAT, json={**ASK, "max_tokens": 6})
    assert (refused.status_code, fits.status_code) == (429, 200)
    assert refused.headers["x-ratelimit-remaining-tokens"] == "10"
    assert refused.json()["error"]["param"] == "limits.tokens_per_minute"


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"max_tokens": 97}, "max_tokens"),
        ({"max_tokens": 33, "n": 3}, "max_tokens"),
        ({}, "max_tokens"),
        ({"messages": [{"role": "user", "content": "x" * 500}]}, "messages"),
    ],
)
@pytest.mark.parametrize("kind", ["tokens_per_minute", "tokens_per_day"])
async def test_chat_that_never_fits_is_refused_before_it_starts(
    build: Build, graph: FakeGraph, asked: dict[str, Any], param: str, kind: str
) -> None:
    async with in_process(build(key_limits={kind: 100})) as client:
        response = await client.post(CHAT, json={**ASK, **asked})
        exact = await client.post(CHAT, json={**ASK, "max_tokens": 96})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert exact.status_code == 200


ROUTES: list[tuple[str, dict[str, Any], int]] = [
    (
        "/v1/completions",
        {"model": "fake-model", "prompt": ["eight by", "te prompts"], "max_tokens": 10},
        25,
    ),
    (
        "/v1/completions",
        {"model": "fake-model", "prompt": [[1, 2, 3]], "max_tokens": 10, "n": 2},
        23,
    ),
    ("/v1/inference", {"prompt": "four tokens here", "max_tokens": 10}, 14),
    ("/v1/embeddings", {"model": "fake-embed", "input": ["one two", "three"]}, 4),
    ("/v1/data/vectorize", {"texts": ["one two", "three"]}, 4),
    ("/v1/rerank", {"query": "one two", "documents": ["three", "four"]}, 7),
    ("/rerank", {"query": "one two", "texts": ["three", "four"]}, 7),
    ("/v1/data/search", {"collection": "docs", "query": "one two"}, 2),
    ("/dify/retrieval", {"knowledge_id": "docs", "query": "one two"}, 2),
    (
        "/v1/data/index",
        {"collection": "docs", "documents": [{"id": "a", "text": "one two three"}]},
        4,
    ),
]


@pytest.mark.parametrize(("path", "body", "reserved"), ROUTES)
async def test_every_route_that_works_with_models_counts_tokens(
    build: Build, graph: FakeGraph, limits: SqliteLimits, path: str, body: Any, reserved: int
) -> None:
    async with in_process(build(key_limits={"tokens_per_day": 1000})) as client:
        await client.post("/v1/data/collections", json={"name": "docs"}, headers=OPERATOR)
        if body.get("model") == "fake-embed":
            body = {**body, "model": graph.embedding_models[0]}
        response = await client.post(path, json=body)
        assert response.status_code == 200, response.text
    assert response.headers["x-ratelimit-remaining-tokens"] == str(1000 - reserved)
    counted = response.json() if isinstance(response.json(), dict) else {}
    if "usage" in counted:
        budget = Budget("key:key_1", Limits(tokens_per_day=1000))
        gauge = limits.take([budget], Cost()).standing.tokens
        assert gauge is not None
        assert 1000 - gauge.remaining == counted["usage"]["total_tokens"]


@pytest.mark.parametrize(("path", "body", "reserved"), ROUTES)
async def test_every_route_that_works_with_models_refuses_for_tokens(
    build: Build, graph: FakeGraph, limits: SqliteLimits, path: str, body: Any, reserved: int
) -> None:
    limits.take([Budget("key:key_1", Limits(tokens_per_minute=100))], Cost(tokens=99))
    async with in_process(build(key_limits={"tokens_per_minute": 100})) as client:
        await client.post("/v1/data/collections", json={"name": "docs"}, headers=OPERATOR)
        if body.get("model") == "fake-embed":
            body = {**body, "model": graph.embedding_models[0]}
        response = await client.post(path, json=body)
    assert response.status_code == 429, response.text
    assert int(response.headers["retry-after"]) >= 1


async def test_requests_at_once_are_bounded_and_come_back(
    build: Build, graph: FakeGraph, limits: SqliteLimits
) -> None:
    graph.delay_s = 0.1
    async with in_process(build(key_limits={"max_concurrent": 2})) as client:
        calls = [client.post(CHAT, json=SMALL) for _ in range(4)]
        codes = sorted(r.status_code for r in await asyncio.gather(*calls))
        assert codes == [200, 200, 429, 429]
        for _ in range(3):
            assert (await client.post(CHAT, json=SMALL)).status_code == 200
    assert leases(limits) == 0


async def test_limits_of_a_route_are_a_tenants(build: Build, limits: SqliteLimits) -> None:
    app = build(limits={"/v1/models": {"requests_per_minute": 1}})
    codes = []
    for tenant in ("acme", "acme", "other"):
        async with in_process(app, tenant) as client:
            codes.append((await client.get("/v1/models")).status_code)
            assert (await client.post(CHAT, json=SMALL)).status_code == 200
    assert codes == [200, 429, 200]


async def test_operators_have_no_default_limits_and_health_has_none(build: Build) -> None:
    async with in_process(build(key_limits={"requests_per_minute": 1})) as client:
        for _ in range(3):
            assert (await client.get("/v1/models", headers=OPERATOR)).status_code == 200
            assert (await client.get("/v1/health")).status_code == 200
        assert (await client.get("/v1/models", headers=AUTH)).status_code == 200
        assert (await client.get("/v1/models", headers=AUTH)).status_code == 429


async def test_keys_without_limits_never_reach_the_store(
    build: Build, limits: SqliteLimits
) -> None:
    async with in_process(build()) as client:
        response = await client.post(CHAT, json=SMALL)
    assert not [name for name in response.headers if name.startswith("x-ratelimit")]
    assert limits._file._connection is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (0.2, "1s"), (59.1, "1m0s"), (3725, "1h2m5s")]
)
def test_duration_is_never_too_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


async def test_busy_file_is_waited_for_in_a_thread(build: Build, limits: SqliteLimits) -> None:
    async with in_process(build(key_limits={"requests_per_minute": 5})) as client:
        with limits._lock:
            call = asyncio.create_task(client.get("/v1/models"))
            await asyncio.sleep(0.05)
            assert not call.done()
        assert (await call).status_code == 200


async def test_busy_file_ends_in_503(build: Build, limits: SqliteLimits) -> None:
    async with in_process(build(key_limits={"requests_per_minute": 5})) as client:
        with limits._lock:
            response: httpx.Response = await client.get("/v1/models")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "overloaded")


async def test_a13_many_keys_of_a_tenant_share_its_limit(build: Build) -> None:
    app = build(limits={"/": {"requests_per_minute": 3}}, key_limits={"requests_per_minute": 2})
    other = {"authorization": f"Bearer {KEY}-with-inference"}  # of the same tenant
    async with in_process(app) as client:
        codes = [
            (await client.get("/v1/models", headers=headers)).status_code
            for headers in (AUTH, AUTH, AUTH, other, other)
        ]
    assert codes == [200, 200, 429, 200, 429]


@pytest.mark.parametrize("path", ["v1/models", ""])
def test_limit_of_a_route_that_cannot_be_is_refused(path: str) -> None:
    with pytest.raises(ValidationError):
        IngressArgs(limits={path: {"requests_per_minute": 1}})
