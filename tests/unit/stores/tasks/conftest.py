"""A table of tasks whose clock stands still until a test moves it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from deployments.stores.database import Database
from deployments.stores.grouping import GroupedWrites
from deployments.stores.tasks.queue import TaskQueue
from deployments.stores.tasks.store import TaskStore
from deployments.types.tasks import Claim, TaskEnd, TaskOrder, TaskState

START = 1_900_000_000.0
DONE = TaskEnd(status="COMPLETED", output=b'{"output": "Paris"}', usage={"total_tokens": 3})
ERROR = {"message": "the model is away", "type": "server_error", "code": "x", "param": None}


@dataclass
class Bench:
    """The store, workers, and their clock."""

    database: Database
    writes: GroupedWrites
    now: float = START

    def clock(self) -> float:
        return self.now

    @property
    def store(self) -> TaskStore:
        return TaskStore(self.database, self.writes, self.clock)

    def worker(self) -> TaskQueue:
        queue = TaskQueue(self.database, self.writes, self.clock)
        queue.enlist()
        return queue

    def submit(self, tenant: str = "acme", **given: Any) -> TaskState:
        order = {"key_id": "key_1", "path": "/v1/inference", "body": b'{"prompt": "x"}', **given}
        return self.store.submit(TaskOrder(tenant=tenant, **order), 1000).result(30)

    def claim(self, queue: TaskQueue, max_tasks: int = 1, **given: Any) -> list[Claim]:
        return queue.claim(max_tasks, **given).result(30)

    def get(self, id_: str, tenant: str = "acme") -> TaskState:
        return self.store.get(tenant, id_)

    def count(self, table: str) -> int:
        with self.database.read() as connection:
            return connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one()  # noqa: S608


@pytest.fixture
def bench(database: Database) -> Iterator[Bench]:
    writes = GroupedWrites(database, "tasks")
    yield Bench(database, writes)
    writes.close()
