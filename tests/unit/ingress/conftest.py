"""The application over a fake graph, in process and behind a real server."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import uvicorn

from deployments.config import IngressArgs
from deployments.engines.extraction.document import Extracted
from deployments.errors import (
    Conflict,
    NotFound,
    SecondFactorInvalid,
    SecondFactorRequired,
    Unauthenticated,
    UnreadableDocument,
)
from deployments.ingress.app import build_app
from deployments.ingress.asgi import App
from deployments.ingress.caching.answer_cache import AnswerCache
from deployments.ingress.entry import Audit
from deployments.ingress.metrics import Metrics
from deployments.ingress.tasks.threaded import Tasks
from deployments.stores.ids import new_id, utc_after, utc_now
from deployments.stores.key_rows import Key
from deployments.stores.limits.sqlite_limits import SqliteLimits
from deployments.stores.replays import Replays
from deployments.stores.second_factors import Enrolment
from deployments.types.access import SCOPES, Grants, Scope
from tests.unit.ingress.fake_graph import FakeGraph

KEY = "rk-test"
ADMIN_KEY = "rk-operator"
CODE = "123456"
ARGS = IngressArgs(second_factor="enrolled")
UNTOUCHED = cast("Replays", None)
"""For tests that send no `Idempotency-Key`."""

OPERATOR = {"authorization": f"Bearer {ADMIN_KEY}"}
AUTH = {"authorization": f"Bearer {KEY}"}


@dataclass(frozen=True)
class FakeKey:
    id: str = "key_1"
    tenant: str = "default"
    is_admin: bool = False
    grants: Grants = Grants()

    def has(self, scope: Scope) -> bool:
        return self.is_admin or scope in self.grants.scopes


class FakeKeys:
    """Knows `KEY` of the default tenant, those of others, and some with few scopes.

    The tenant's name, or the scopes, follow it.
    """

    def __init__(self) -> None:
        self.num_asked = 0
        self.made: dict[str, Key] = {}

    async def verify(self, bearer: str) -> FakeKey:
        self.num_asked += 1
        if bearer == KEY:
            return FakeKey()
        if bearer == ADMIN_KEY:
            return FakeKey("key_3", is_admin=True)
        if bearer.startswith(f"{KEY}-with-"):
            scopes = tuple(one for one in SCOPES if one in bearer.split("-with-")[1].split("+"))
            return FakeKey("key_4", grants=Grants(scopes=scopes))
        if bearer.startswith(f"{KEY}-of-"):
            return FakeKey("key_2", bearer.removeprefix(f"{KEY}-of-"))
        raise Unauthenticated("the key is not valid")

    async def create(self, name: str, **given: Any) -> tuple[Key, str]:
        key = Key(new_id("key"), name, created_at=utc_now(), **given)
        self.made[key.id] = key
        return key, "rs_shown-once"

    async def page(self, tenant: str | None, *, limit: int, after: str) -> list[Key]:
        found = [key for key in self.made.values() if tenant in (None, key.tenant)]
        return [key for key in found if key.id > after][:limit]

    async def get(self, key_id: str) -> Key:
        if key_id not in self.made:
            raise NotFound("there is no key with this id")
        return self.made[key_id]

    def keep(self, key_id: str, tenant: str = "default", **given: Any) -> None:
        """Have a key found by its id, as what is done later needs it."""
        self.made[key_id] = Key(
            key_id, "kept", is_admin=False, created_at=utc_now(), tenant=tenant, **given
        )

    async def rotate(self, key_id: str, *, overlap_s: float) -> tuple[Key, str]:
        old = await self.get(key_id)
        self.made[key_id] = replace(old, expires_at=utc_after(overlap_s))
        new = replace(old, id=new_id("key"))
        self.made[new.id] = new
        return new, "rs_shown-once"

    async def revoke(self, key_id: str) -> Key:
        self.made[key_id] = replace(await self.get(key_id), revoked_at=utc_now())
        return self.made[key_id]


class FakeFactors:
    """Second factors of the keys that are named; the code of each is `CODE`."""

    def __init__(self, *enrolled: str) -> None:
        self.enrolled = set(enrolled)
        self.num_used = 0

    async def is_enrolled(self, key_id: str) -> bool:
        return key_id in self.enrolled

    async def enrol(self, key_id: str, name: str) -> Enrolment:
        if key_id in self.enrolled:
            raise Conflict("the key has a second factor: remove it first")
        return Enrolment("otpauth://totp/x?secret=ABC", "ABC", ("aaaa-bbbb",))

    async def confirm(self, key_id: str, code: str) -> None:
        if code != CODE:
            raise SecondFactorInvalid("the code is wrong, or was used already")
        self.enrolled.add(key_id)

    async def use(self, key_id: str, code: str) -> None:
        if key_id not in self.enrolled:
            raise SecondFactorRequired("this key has no second factor: enrol one first")
        self.num_used += 1
        if code != CODE:
            raise SecondFactorInvalid("the code is wrong, or was used already")

    async def remove(self, key_id: str) -> None:
        if key_id not in self.enrolled:
            raise NotFound("the key has no second factor")
        self.enrolled.remove(key_id)


async def until(is_so: Callable[[], object], timeout_s: float = 10) -> None:
    """Wait for something that happens meanwhile."""
    async with asyncio.timeout(timeout_s):
        while not is_so():
            await asyncio.sleep(0.005)


async def extract(data: bytes, filename: str) -> Extracted:
    if data.startswith(b"broken"):
        raise UnreadableDocument("the file is damaged")
    return Extracted(data.decode(), "A title" if filename.endswith(".md") else "")


@pytest.fixture
def graph() -> FakeGraph:
    return FakeGraph()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


Build = Callable[..., App]


@pytest.fixture
def limits(tmp_path: Path) -> Iterator[SqliteLimits]:
    store = SqliteLimits(tmp_path / "limits.db")
    yield store
    store.close()


@pytest.fixture
def build(graph: FakeGraph, metrics: Metrics, limits: SqliteLimits) -> Build:
    def built(
        audit: Audit | None = None,
        answers: AnswerCache | None = None,
        tasks: Tasks | None = None,
        **args: object,
    ) -> App:
        return build_app(
            graph,
            FakeKeys(),
            IngressArgs(**{"second_factor": "enrolled", **args}),
            extract=extract,
            factors=FakeFactors(),
            replays=UNTOUCHED,
            metrics=metrics,
            audit=audit,
            limits=limits,
            answers=answers,
            tasks=tasks,
        )

    return built


@pytest.fixture
async def client(build: Build) -> AsyncIterator[httpx.AsyncClient]:
    async with in_process(build()) as client:
        yield client


def in_process(app: App, tenant: str | None = None) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app)
    headers = {"authorization": f"Bearer {KEY}-of-{tenant}"} if tenant else AUTH
    return httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers)


@asynccontextmanager
async def _served(app: App) -> AsyncIterator[httpx.AsyncClient]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve([listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        async with httpx.AsyncClient(base_url=base_url, headers=AUTH, timeout=20) as client:
            yield client
    finally:
        server.should_exit = True
        await serving
        listener.close()


Served = Callable[[App], AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def served() -> Served:
    return _served
