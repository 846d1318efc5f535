"""An application, a table of tasks on SQLite, and a crew that does them."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from deployments.config import IngressArgs
from deployments.ingress.app import Surface, build_surface
from deployments.ingress.batches.job import BatchJob
from deployments.ingress.entry import Audit
from deployments.ingress.metrics import Metrics
from deployments.ingress.tasks.crew import Crew
from deployments.ingress.tasks.index_job import IndexJob
from deployments.ingress.tasks.jobs import Job
from deployments.ingress.tasks.ordering import INDEX
from deployments.ingress.tasks.route_job import RouteJob
from deployments.ingress.tasks.threaded import ThreadedTasks
from deployments.ingress.webhooks.desk import WebhookDesk
from deployments.ingress.webhooks.signing import Signer
from deployments.stores.batches.opening import BatchStores, open_batches
from deployments.stores.batches.store import PATH as BATCHES
from deployments.stores.database import Database
from deployments.stores.feedback import FeedbackStore
from deployments.stores.grouping import GroupedWrites
from deployments.stores.limits.sqlite_limits import SqliteLimits
from deployments.stores.migrations import migrate
from deployments.stores.replays import Replays
from deployments.stores.tasks.queue import TaskQueue
from deployments.stores.tasks.store import TaskStore
from deployments.stores.webhooks import WebhookStore
from tests.unit.ingress.conftest import KEY, FakeFactors, FakeKeys, extract, in_process
from tests.unit.ingress.fake_graph import FakeGraph


@dataclass
class House:
    """The application and its table; crews come and go."""

    database: Database
    writes: GroupedWrites
    store: TaskStore
    batches: BatchStores
    keys: FakeKeys
    surface: Surface
    args: IngressArgs
    crews: list[Crew] = field(default_factory=list)
    idle: float = math.inf
    """For how long nobody has waited, as crews are told."""

    def queue(self) -> TaskQueue:
        return TaskQueue(self.database, self.writes)

    async def idle_s(self) -> float:
        return self.idle

    def batch_job(self) -> BatchJob:
        bounds = self.args.batches, self.args.max_json_depth
        return BatchJob(self.batches, self.surface.calls, self.idle_s, *bounds)

    @asynccontextmanager
    async def crew(self, **given: Any) -> AsyncIterator[Crew]:
        queue = self.queue()
        calls = self.surface.calls
        options = {"max_running": 4, "is_told": False, **given}
        jobs: dict[str, Job] = {
            INDEX: IndexJob(calls),
            BATCHES: self.batch_job(),
        }
        crew = Crew(queue, jobs, RouteJob(calls, queue), **options)
        running = asyncio.create_task(crew.run())
        try:
            yield crew
        finally:
            await crew.drain(0.2)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    def client(self, tenant: str | None = None) -> httpx.AsyncClient:
        return in_process(self.surface.gate, tenant)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("migrated") / "test.db"
    migrate(f"sqlite:///{path}")
    return path.read_bytes()


Built = Callable[..., House]


@pytest.fixture
def house_of(
    migrated: bytes, tmp_path: Path, graph: FakeGraph, limits: SqliteLimits
) -> Iterator[Built]:
    path = tmp_path / "state" / "ragserve.db"
    path.parent.mkdir(mode=0o700)
    path.write_bytes(migrated)
    database = Database(f"sqlite:///{path}", pool_size=4)
    writes = GroupedWrites(database, "tasks")

    def built(audit: Audit | None = None, **args: Any) -> House:
        ingress = IngressArgs(second_factor="enrolled", **args)
        store, keys = TaskStore(database, writes), FakeKeys()
        keys.keep("key_1")
        keys.keep("key_2", "acme")
        batches = open_batches(database, store)
        surface = build_surface(
            graph,
            keys,
            ingress,
            extract=extract,
            factors=FakeFactors(),
            audit=audit,
            replays=Replays(database, path.parent),
            metrics=Metrics(),
            limits=limits,
            tasks=ThreadedTasks(store, ingress.tasks.max_waiting),
            webhooks=WebhookDesk(WebhookStore(database), Signer(bytes(32))),
            batches=batches,
            feedback=FeedbackStore(database),
        )
        return House(database, writes, store, batches, keys, surface, ingress)

    yield built
    writes.close()
    database.close()


@pytest.fixture
def house(house_of: Built) -> House:
    return house_of()


def client_of(house: House, key: str = KEY) -> openai.AsyncOpenAI:
    """Return OpenAI's own client over the application; it does not try again by itself."""
    transport = httpx.ASGITransport(house.surface.gate)
    http = httpx.AsyncClient(transport=transport, base_url="http://test/v1")
    return openai.AsyncOpenAI(
        api_key=key, base_url="http://test/v1", http_client=http, max_retries=0
    )


@pytest.fixture
async def client(house: House) -> AsyncIterator[openai.AsyncOpenAI]:
    async with client_of(house) as client:
        yield client
