"""Where the gate counts: one file of two replicas, Redis, nowhere, and for clients that leave."""

import asyncio
from pathlib import Path

import pytest

from deployments.config import IngressArgs
from deployments.ingress.app import build_app
from deployments.ingress.metering import Meter
from deployments.ingress.metrics import Metrics
from deployments.stores.limits.fallback import FallbackLimits
from deployments.stores.limits.redis_limits import RedisLimits
from deployments.stores.limits.sqlite_limits import SqliteLimits
from deployments.types.access import Grants, Limits
from tests.servers.redis_server import running_redis
from tests.unit.ingress.conftest import (
    UNTOUCHED,
    FakeFactors,
    FakeKey,
    FakeKeys,
    extract,
    in_process,
)
from tests.unit.ingress.fake_graph import FakeGraph
from tests.unit.ingress.test_metering import CHAT, SMALL, leases


@pytest.mark.parametrize("limit", [1, 100])
async def test_two_replicas_admit_together_no_more_than_the_limit(
    graph: FakeGraph, tmp_path: Path, limit: int
) -> None:
    args = IngressArgs(key_limits={"requests_per_minute": limit})
    stores = [SqliteLimits(tmp_path / "limits.db") for _ in range(2)]
    apps = [
        build_app(
            graph,
            FakeKeys(),
            args,
            extract=extract,
            factors=FakeFactors(),
            replays=UNTOUCHED,
            limits=one,
        )
        for one in stores
    ]

    async def ask(number: int) -> int:
        async with in_process(apps[number % 2]) as client:
            responses = [await client.post(CHAT, json=SMALL) for _ in range(3)]
        return sum(one.status_code == 200 for one in responses)

    admitted = await asyncio.gather(*map(ask, range(64)))
    assert sum(admitted) == limit
    for store in stores:
        store.close()


async def test_limits_of_a_key_come_before_the_default(
    graph: FakeGraph, limits: SqliteLimits
) -> None:
    class Keys(FakeKeys):
        async def verify(self, bearer: str) -> FakeKey:
            return FakeKey(grants=Grants(limits=Limits(requests_per_minute=3)))

    default = {"requests_per_minute": 1, "tokens_per_minute": 200}
    app = build_app(
        graph,
        Keys(),
        IngressArgs(key_limits=default),
        extract=extract,
        factors=FakeFactors(),
        replays=UNTOUCHED,
        limits=limits,
    )
    async with in_process(app) as client:
        responses = [await client.post(CHAT, json=SMALL) for _ in range(4)]
    assert [response.status_code for response in responses] == [200, 200, 200, 429]
    assert responses[0].headers["x-ratelimit-limit-tokens"] == "200"


async def test_limits_without_a_store_are_refused_and_not_forgotten(graph: FakeGraph) -> None:
    args = IngressArgs(key_limits={"requests_per_minute": 1})
    async with in_process(
        build_app(
            graph, FakeKeys(), args, extract=extract, factors=FakeFactors(), replays=UNTOUCHED
        )
    ) as client:
        assert (await client.get("/v1/models")).status_code == 503


async def test_client_that_leaves_while_it_is_counted_holds_nothing(
    limits: SqliteLimits, metrics: Metrics
) -> None:
    args = IngressArgs(key_limits={"max_concurrent": 1, "tokens_per_minute": 50})
    ticket = Meter(limits, args, metrics).ticket(FakeKey(), "/v1/models")
    with limits._lock:
        admitting = asyncio.create_task(ticket.admit())
        await asyncio.sleep(0.02)
        admitting.cancel()
        await asyncio.gather(admitting, return_exceptions=True)
        assert admitting.cancelled()
    async with asyncio.timeout(5):
        while limits._file._connection is None or limits._held or leases(limits):
            await asyncio.sleep(0.01)


async def test_redis_counts_for_the_gate_and_may_go_away(
    graph: FakeGraph, metrics: Metrics, limits: SqliteLimits
) -> None:
    args = IngressArgs(key_limits={"max_concurrent": 1, "tokens_per_minute": 100})
    with running_redis() as server:
        shared = RedisLimits(server.url, timeout_s=10)
        store = FallbackLimits(shared, limits, on_fallback=metrics.count_fallback)
        app = build_app(
            graph,
            FakeKeys(),
            args,
            extract=extract,
            factors=FakeFactors(),
            replays=UNTOUCHED,
            metrics=metrics,
            limits=store,
        )
        async with in_process(app) as client:
            for _ in range(5):  # one after another: each has given its lease back at its end
                response = await client.post(CHAT, json=SMALL)
                assert response.status_code == 200
            used = response.json()["usage"]["total_tokens"]
            left = 100 - 4 * used - 14
            assert response.headers["x-ratelimit-remaining-tokens"] == str(left)
            assert b"ragserve_limits_fallbacks_total 0.0" in metrics.text()
            server.kill()
            response = await client.post(CHAT, json=SMALL)
            assert response.status_code == 200
            assert response.headers["x-ratelimit-remaining-tokens"] == "86"
            assert b"ragserve_limits_fallbacks_total 2.0" in metrics.text()
    shared.close()
