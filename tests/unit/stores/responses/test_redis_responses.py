"""Answers in a real Redis: sealed, apart from others', and not missed when it is away."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deployments.errors import StoreUnavailable
from deployments.stores.responses import redis_responses
from deployments.stores.responses.redis_responses import BATCH, RedisResponses
from tests.servers.redis_server import RedisServer

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture
async def store(redis_server: RedisServer, tmp_path: Path) -> AsyncIterator[RedisResponses]:
    store = RedisResponses(redis_server.url, tmp_path, timeout_s=2)
    yield store
    await store.close()


async def test_value_is_kept_for_its_time(store: RedisResponses, redis_server: RedisServer) -> None:
    await store.put("key", b"\x00value", 300)
    assert await store.get("key") == b"\x00value"
    assert await store.get("other") is None
    with redis_server.client() as client:
        [name] = client.keys("*")
        assert 299_000 < client.pttl(name) <= 300_000


async def test_redis_never_sees_what_is_kept(
    store: RedisResponses, redis_server: RedisServer, tmp_path: Path
) -> None:
    await store.put("key", b"a secret answer", 300)
    with redis_server.client(is_text=False) as client:
        [name] = client.keys("*")
        held = client.get(name)
    assert b"secret" not in held
    assert (tmp_path / "pepper").read_bytes() not in held


@pytest.mark.parametrize("position", [0, 5, 12, 20, -1])
async def test_changed_value_counts_as_none(
    store: RedisResponses, redis_server: RedisServer, position: int
) -> None:
    await store.put("key", b"a value", 300)
    with redis_server.client(is_text=False) as client:
        [name] = client.keys("*")
        held = bytearray(client.get(name))
        held[position] ^= 1
        client.set(name, bytes(held))
    assert await store.get("key") is None


async def test_value_under_another_key_or_cut_counts_as_none(
    store: RedisResponses, redis_server: RedisServer
) -> None:
    await store.put("one", b"a value", 300)
    with redis_server.client(is_text=False) as client:
        [name] = client.keys("*")
        client.set(name.replace(b"one", b"two"), client.get(name))
        client.set(name.replace(b"one", b"cut"), client.get(name)[:7])
    assert await store.get("two") is None
    assert await store.get("cut") is None


async def test_clear_removes_all_of_this_installation_and_nothing_else(
    store: RedisResponses, redis_server: RedisServer, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = RedisResponses(redis_server.url, tmp_path / "other", timeout_s=2)
    await other.put("key", b"theirs", 300)
    with redis_server.client() as client:
        client.set("ragserve:limits:key:1", "5")
    for number in range(2 * BATCH + 1):
        await store.put(f"key-{number}", b"ours", 300)
    assert await store.get("key-7") == b"ours"
    await store.clear()
    assert await store.get("key-7") is None
    assert await other.get("key") == b"theirs"
    with redis_server.client() as client:
        assert client.dbsize() == 2
    await other.close()


async def test_without_redis_nothing_is_kept_and_nothing_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RedisResponses(NOWHERE, tmp_path, timeout_s=2)
    with caplog.at_level(logging.WARNING):
        await store.put("key", b"value", 300)
        assert await store.get("key") is None
        monkeypatch.setattr(redis_responses, "REST_S", 0.0)
        assert await store.get("key") is None
    assert len(caplog.records) == 1  # not one for each request
    with pytest.raises(StoreUnavailable):
        await store.clear()
    await store.close()


async def test_redis_that_does_not_answer_is_left_alone_for_a_moment(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RedisResponses(redis_server.url, tmp_path, timeout_s=2)
    await store.put("key", b"value", 300)
    clock = [1000.0]
    monkeypatch.setattr(redis_responses.time, "monotonic", lambda: clock[0])
    store._rest(OSError())
    assert await store.get("key") is None
    clock[0] += redis_responses.REST_S
    assert await store.get("key") == b"value"
    await store.close()
