"""Answers that are kept: who gets them, and for how long; nothing is computed twice at once."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.config import CacheArgs
from deployments.errors import Overloaded, StoreUnavailable
from deployments.ingress.caching.answer_cache import AnswerCache
from deployments.ingress.metrics import Metrics
from deployments.stores.responses.memory import MemoryResponses
from deployments.stores.responses.redis_responses import RedisResponses
from deployments.types import Document
from tests.servers.redis_server import RedisServer
from tests.unit.ingress.conftest import Build, Served, in_process, until
from tests.unit.ingress.fake_graph import FakeGraph

CHAT, COMPLETE, INFER = "/v1/chat/completions", "/v1/completions", "/v1/inference"
ASK = {"model": "fake-model", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
MIB = 1024 * 1024


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def answers(metrics: Metrics, clock: Clock) -> AnswerCache:
    store = MemoryResponses(MIB, clock=clock)
    return AnswerCache(store, b"secret", metrics, max_entry_bytes=MIB)


@pytest.fixture
async def client(build: Build, answers: AnswerCache) -> AsyncIterator[httpx.AsyncClient]:
    async with in_process(build(answers=answers)) as client:
        yield client


async def ask(
    client: httpx.AsyncClient, path: str = CHAT, x_cache: str | None = None, **fields: Any
) -> httpx.Response:
    headers = {} if x_cache is None else {"x-cache": x_cache}
    body = ASK if path != COMPLETE else {"model": "fake-model", "prompt": "hi", "temperature": 0}
    return await client.post(path, json={**body, **fields}, headers=headers)


async def outcome(client: httpx.AsyncClient, path: str = CHAT, **fields: Any) -> str:
    response = await ask(client, path, **fields)
    assert response.status_code == 200, response.text
    for _ in range(3):
        await asyncio.sleep(0)  # memory takes an answer just after it was given
    return response.headers["x-cache"]


@pytest.mark.parametrize("path", [CHAT, COMPLETE, INFER])
@pytest.mark.parametrize("is_stream", [False, True])
async def test_same_question_is_answered_from_what_is_kept(
    client: httpx.AsyncClient, graph: FakeGraph, path: str, is_stream: bool
) -> None:
    first = await ask(client, path, stream=is_stream, n=2 if path == CHAT else 1)
    again = await ask(client, path, stream=is_stream, n=2 if path == CHAT else 1)
    assert first.headers["x-cache"] == "miss"
    assert again.headers["x-cache"] == "hit"
    assert len(graph.requests) == 1
    told = [one.text.replace(one.headers["x-request-id"][4:], "") for one in (first, again)]
    timeless = [re.sub(r'"created":\d+', "", text) for text in told]
    assert timeless[0] == timeless[1]


@pytest.mark.parametrize(
    "change",
    [
        {"messages": [{"role": "user", "content": "ho"}]},
        {"messages": [{"role": "system", "content": "hi"}, *ASK["messages"]]},  # type: ignore[misc]
        {"max_tokens": 7},
        {"top_p": 0.5},
        {"seed": 1},
        {"stop": ["x"]},
        {"n": 2},
        {"logprobs": True},
        {"presence_penalty": 0.5},
        {"frequency_penalty": 0.5},
        {"logit_bias": {"5": 1}},
        {"response_format": {"type": "json_object"}},
        {"stream": True},
        {"model": "second-model"},
    ],
    ids=lambda change: "-".join(change),
)
async def test_any_other_question_is_another(
    client: httpx.AsyncClient, graph: FakeGraph, change: dict[str, Any]
) -> None:
    assert await outcome(client) == "miss"
    assert await outcome(client, **change) == "miss"
    assert len(graph.requests) == 2


async def test_another_load_of_the_model_is_asked_anew(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    assert await outcome(client) == "miss"
    graph.load = "second"
    assert await outcome(client) == "miss"


async def test_changed_collection_is_asked_anew(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    documents = graph.stored["docs"] = {"a": Document(id="a", text="one")}
    asked = {"model": "rag/docs"}
    first = await ask(client, **asked)
    assert first.status_code == 200, first.text
    again = await ask(client, **asked)
    assert again.headers["x-cache"] == "hit"
    assert first.json()["sources"] == again.json()["sources"] != []
    documents["b"] = Document(id="b", text="two")
    changed = await ask(client, **asked)
    assert changed.headers["x-cache"] == "miss"
    assert len(changed.json()["sources"]) == 2


async def test_a12_other_tenants_answers_are_not_found(
    build: Build, answers: AnswerCache, graph: FakeGraph
) -> None:
    app = build(answers=answers)
    async with in_process(app, "one") as one, in_process(app, "two") as two:
        assert await outcome(one) == "miss"
        assert await outcome(two) == "miss"
        assert await outcome(one) == "hit"
    assert len(graph.requests) == 2


async def test_sampled_answers_are_kept_only_on_wish(client: httpx.AsyncClient) -> None:
    assert [await outcome(client, temperature=1) for _ in range(2)] == ["bypass", "bypass"]
    wished = [await outcome(client, temperature=1, x_cache="use") for _ in range(2)]
    assert wished == ["miss", "hit"]
    assert await outcome(client, temperature=1) == "bypass"


async def test_refresh_computes_anew_and_keeps_that(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    await ask(client)
    graph.words = ["new"]
    assert (await ask(client)).json()["choices"][0]["message"]["content"] == "echo: hi"
    assert await outcome(client, x_cache="refresh") == "miss"
    kept = await ask(client)
    assert kept.headers["x-cache"] == "hit"
    assert kept.json()["choices"][0]["message"]["content"] == "new"


async def test_off_neither_looks_nor_keeps(client: httpx.AsyncClient, graph: FakeGraph) -> None:
    for _ in range(2):
        assert "x-cache" not in (await ask(client, x_cache="off")).headers
    assert await outcome(client) == "miss"
    assert len(graph.requests) == 3


async def test_unknown_wish_is_refused(client: httpx.AsyncClient, graph: FakeGraph) -> None:
    response = await ask(client, x_cache="always")
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "x-cache"
    assert graph.requests == []


async def test_answers_are_kept_for_the_time_of_their_route(
    build: Build, answers: AnswerCache, clock: Clock
) -> None:
    cache = CacheArgs(ttl_s=50, routes={COMPLETE: 0, INFER: 5})
    async with in_process(build(answers=answers, cache=cache)) as client:
        asked: dict[str, dict[str, Any]] = {CHAT: {}, INFER: {"max_tokens": 9}}
        for path, fields in asked.items():
            assert await outcome(client, path, **fields) == "miss"
            assert await outcome(client, path, **fields) == "hit"
        assert "x-cache" not in (await ask(client, COMPLETE)).headers
        clock.now += 6
        assert await outcome(client, CHAT) == "hit"
        assert await outcome(client, INFER, **asked[INFER]) == "miss"
        clock.now += 50
        assert await outcome(client, CHAT) == "miss"


async def test_routes_share_what_is_the_same_answer(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    assert [await outcome(client, path) for path in (CHAT, INFER)] == ["miss", "hit"]
    assert len(graph.requests) == 1


async def test_stampede_computes_once(client: httpx.AsyncClient, graph: FakeGraph) -> None:
    graph.delay_s = 0.02
    responses = await asyncio.gather(*(ask(client, stream=n % 2 == 0) for n in range(100)))
    assert len(graph.requests) == 2  # the stream is another question
    outcomes = [response.headers["x-cache"] for response in responses]
    assert sorted(set(outcomes)) == ["miss", "shared"]
    assert outcomes.count("miss") == 2
    assert len({response.text.count("echo") for response in responses[::2]}) == 1


async def test_who_leaves_does_not_end_what_others_read(
    served: Served, build: Build, answers: AnswerCache, graph: FakeGraph
) -> None:
    graph.delay_s = 0.1
    async with served(build(answers=answers)) as client:
        leaver = asyncio.create_task(ask(client))
        await until(lambda: len(graph.requests) == 1)
        stayer = asyncio.create_task(ask(client))
        await asyncio.sleep(0.05)
        leaver.cancel()
        response = await stayer
        assert response.headers["x-cache"] == "shared"
        assert response.json()["choices"][0]["message"]["content"] == "echo: hi"
    assert len(graph.requests) == 1


async def test_work_ends_when_all_have_left(
    served: Served, build: Build, answers: AnswerCache, graph: FakeGraph
) -> None:
    graph.delay_s = 5
    async with served(build(answers=answers)) as client:
        leavers = [asyncio.create_task(ask(client)) for _ in range(3)]
        await until(lambda: len(graph.requests) == 1)
        await asyncio.sleep(0.1)
        for leaver in leavers:
            leaver.cancel()
        await until(lambda: graph.num_closed == 1)
        graph.delay_s = 0
        assert await outcome(client) == "miss"


async def test_failures_are_not_kept(client: httpx.AsyncClient, graph: FakeGraph) -> None:
    graph.error = Overloaded("full")
    assert (await ask(client)).status_code == 503
    graph.error = None
    assert await outcome(client) == "miss"


async def test_answers_that_broke_off_are_not_kept(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    graph.is_cut = True
    assert (await ask(client)).status_code == 502
    graph.is_cut = False
    assert await outcome(client) == "miss"


async def test_larger_answers_are_not_kept(build: Build, metrics: Metrics) -> None:
    answers = AnswerCache(MemoryResponses(MIB), b"secret", metrics, max_entry_bytes=20)
    async with in_process(build(answers=answers)) as client:
        assert [await outcome(client) for _ in range(2)] == ["miss", "miss"]


async def test_fallbacks_are_never_kept(client: httpx.AsyncClient) -> None:
    asked = {"fallbacks": ["second-model"]}
    assert [await outcome(client, **asked) for _ in range(2)] == ["bypass", "bypass"]


async def test_forgetting_reaches_what_is_kept_and_what_is_on_its_way(
    client: httpx.AsyncClient, graph: FakeGraph, answers: AnswerCache
) -> None:
    await ask(client)
    graph.delay_s = 0.05
    other = {"messages": [{"role": "user", "content": "slow"}]}
    slow = asyncio.create_task(ask(client, **other))
    await until(lambda: len(graph.requests) == 2)
    await answers.forget()
    assert (await slow).status_code == 200
    assert await outcome(client) == "miss"
    assert await outcome(client, **other) == "miss"
    assert await outcome(client, **other) == "hit"


async def test_metrics_count_how_answers_were_had(
    client: httpx.AsyncClient, metrics: Metrics
) -> None:
    for temperature in (0, 0, 1):
        await ask(client, temperature=temperature)
    page = metrics.text().decode()
    for kind in ("hit", "miss", "bypass"):
        assert f'ragserve_answers_total{{cache="{kind}"}} 1.0' in page


async def test_replicas_share_answers_in_redis(
    build: Build, metrics: Metrics, graph: FakeGraph, redis_server: RedisServer, tmp_path: Path
) -> None:
    stores = [RedisResponses(redis_server.url, tmp_path, timeout_s=2) for _ in range(2)]
    caches = [AnswerCache(one, b"secret", metrics, max_entry_bytes=MIB) for one in stores]
    first, second = (in_process(build(answers=cache)) for cache in caches)
    assert await outcome(first) == "miss"
    assert await outcome(second) == "hit"
    await caches[0].forget()
    assert await outcome(second) == "miss"
    for cache in caches:
        await cache.close()


async def test_redis_that_dies_means_uncached_not_broken(
    build: Build, metrics: Metrics, redis_server: RedisServer, tmp_path: Path
) -> None:
    store = RedisResponses(redis_server.url, tmp_path, timeout_s=2)
    answers = AnswerCache(store, b"secret", metrics, max_entry_bytes=MIB)
    client = in_process(build(answers=answers))
    assert await outcome(client) == "miss"
    with redis_server.client() as redis:
        await until(lambda: redis.dbsize() == 1)
    assert await outcome(client) == "hit"
    redis_server.kill()
    try:
        for _ in range(2):
            assert await outcome(client) == "miss"
            await until(lambda: not answers._keeping)
        with pytest.raises(StoreUnavailable):  # an erasure must not be told that all is gone
            await answers.forget()
    finally:
        redis_server.start()
    await answers.close()
