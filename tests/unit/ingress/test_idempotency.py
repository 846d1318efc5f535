"""Requests that create something happen once for an `Idempotency-Key`."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.ingress.access import CREATING, RULES
from deployments.ingress.app import build_app
from deployments.stores.database import Database
from deployments.stores.migrations import migrate
from deployments.stores.replays import Replays
from tests.unit.ingress.conftest import ARGS, OPERATOR, FakeFactors, FakeKeys, extract, in_process
from tests.unit.ingress.fake_graph import FakeGraph
from tests.unit.ingress.test_tenants import documents

KEY = {"idempotency-key": "order-1"}


class Desk:
    def __init__(self, folder: Path) -> None:
        url = f"sqlite:///{folder / 'replays.db'}"
        migrate(url)
        self._database = Database(url)
        self.graph, self.keys = FakeGraph(), FakeKeys()
        self._app = build_app(
            self.graph,
            self.keys,
            ARGS,
            extract=extract,
            factors=FakeFactors(),
            replays=Replays(self._database, folder),
        )

    async def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        async with in_process(self._app) as client:
            return await client.post(path, json=body, headers={**OPERATOR, **KEY, **headers})

    def close(self) -> None:
        self._database.close()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.close()


def test_operations_that_create_are_operations() -> None:
    assert RULES.keys() >= CREATING


async def test_second_request_gets_the_first_ones_answer(desk: Desk) -> None:
    first = await desk.post("/v1/keys", {"name": "x"})
    second = await desk.post("/v1/keys", {"name": "x"})
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert second.headers["content-type"] == first.headers["content-type"]
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert len(desk.keys.made) == 1


async def test_requests_without_a_key_or_with_others_are_their_own(desk: Desk) -> None:
    for headers in ({}, {"idempotency-key": "order-2"}, {"idempotency-key": ""}):
        await desk.post("/v1/keys", {"name": "x"}, **headers)
    await desk.post("/v1/keys", {"name": "x"}, **{"idempotency-key": ""})
    assert len(desk.keys.made) == 4


async def test_key_that_comes_with_another_body_is_refused(desk: Desk) -> None:
    await desk.post("/v1/keys", {"name": "x"})
    other = await desk.post("/v1/keys", {"name": "y"})
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_mismatch")
    assert len(desk.keys.made) == 1


async def test_failure_is_not_kept(desk: Desk) -> None:
    desk.graph.stored = {"docs": documents()}
    taken = await desk.post("/v1/data/collections", {"name": "docs"})
    assert taken.status_code == 409
    desk.graph.stored = {}
    assert (await desk.post("/v1/data/collections", {"name": "docs"})).status_code == 201


async def test_of_two_at_once_one_is_made(desk: Desk) -> None:
    gate = asyncio.Event()
    create = desk.keys.create

    async def slow(name: str, **given: Any) -> Any:
        await gate.wait()
        return await create(name, **given)

    desk.keys.create = slow  # type: ignore[method-assign]
    first = asyncio.create_task(desk.post("/v1/keys", {"name": "x"}))
    await asyncio.sleep(0.3)
    second = await desk.post("/v1/keys", {"name": "x"})
    assert (second.status_code, second.json()["error"]["code"]) == (409, "conflict")
    gate.set()
    assert (await first).status_code == 201
    assert len(desk.keys.made) == 1


@pytest.mark.parametrize("key", ["x" * 256, "\x01"])
async def test_key_that_is_none_is_refused(desk: Desk, key: str) -> None:
    response = await desk.post("/v1/keys", {"name": "x"}, **{"idempotency-key": key})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "idempotency-key"


async def test_brief_request_that_died_with_its_ingress_is_made_again_soon(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = desk.keys.create

    async def dies(*args: Any, **given: Any) -> Any:
        raise asyncio.CancelledError

    monkeypatch.setattr(desk.keys, "create", dies)
    with pytest.raises(asyncio.CancelledError):
        await desk.post("/v1/keys", {"name": "x"})
    monkeypatch.setattr(desk.keys, "create", create)
    assert (await desk.post("/v1/keys", {"name": "x"})).status_code == 409
    monkeypatch.setattr("deployments.ingress.idempotency.BRIEF_PATIENCE_S", 0.0)
    assert (await desk.post("/v1/keys", {"name": "x"})).status_code == 201
