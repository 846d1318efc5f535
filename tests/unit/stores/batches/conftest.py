"""The stores of files and batches over a database, under a clock that tests set."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from deployments.stores.batches.opening import BatchStores, open_batches
from deployments.stores.database import Database
from deployments.stores.grouping import GroupedWrites
from deployments.stores.tasks.queue import TaskQueue
from deployments.stores.tasks.store import TaskStore
from deployments.types.batches import (
    BatchLine,
    BatchOrder,
    BatchState,
    FileOrder,
    LineResult,
    StoredFile,
)
from deployments.types.tasks import Claim

DAY_S = 86_400.0


@dataclass
class Desk:
    """What tests do with files and batches; `now` is what the clock says."""

    database: Database
    writes: GroupedWrites
    now: float = 1_000_000.0

    def __post_init__(self) -> None:
        self.tasks = TaskStore(self.database, self.writes, self.clock)
        self.queue = TaskQueue(self.database, self.writes, self.clock)
        self.stores: BatchStores = open_batches(self.database, self.tasks, clock=self.clock)
        self.files, self.batches = self.stores.files, self.stores.batches
        self.attempts = self.stores.attempts
        self.queue.enlist()

    def clock(self) -> float:
        return self.now

    def file(self, *parts: bytes, tenant: str = "acme", **said: Any) -> StoredFile:
        parts = parts or (b"{}\n",)
        num_bytes = sum(map(len, parts))
        given = {"purpose": "batch", "filename": "in.jsonl", **said}
        order = FileOrder(tenant=tenant, num_bytes=num_bytes, **given)
        id_ = self.files.begin(order, max_files=100, max_bytes=1_000_000)
        for number, part in enumerate(parts):
            self.files.add(id_, number, part)
        return self.files.finish(id_)

    def batch(self, tenant: str = "acme", **said: Any) -> BatchState:
        given: dict[str, Any] = {
            "endpoint": "/v1/completions",
            "metadata": {"a": "b"},
            "window_s": DAY_S,
            "output_kept_s": 10 * DAY_S,
            "input_file_id": said.get("input_file_id") or self.file(tenant=tenant).id,
            **said,
        }
        order = BatchOrder(tenant=tenant, key_id="key_1", **given)
        return self.batches.create(order, 5)

    def begun(self, num_lines: int = 4, collections: Sequence[str] = ()) -> BatchState:
        """Return a batch that is claimed and has its lines."""
        batch = self.batch()
        (self.held,) = self.claim()
        assert self.held.task_id == batch.task_id
        lines = [
            BatchLine(n, f"c{n}", collections[n - 1] if n <= len(collections) else "")
            for n in range(1, num_lines + 1)
        ]
        assert self.attempts.begin(batch.id, 1) is not None
        assert self.attempts.accept(batch.id, 1, lines)
        return self.batches.get("acme", batch.id)

    def claim(self) -> list[Claim]:
        return self.queue.claim(1).result(10)

    def done(self, batch: BatchState, *numbers: int, failed: Sequence[int] = ()) -> None:
        results = [result(number, is_failed=number in failed) for number in numbers]
        assert self.attempts.record(batch.id, 1, results) is not None

    def text(self, file_id: str | None, tenant: str = "acme") -> bytes:
        assert file_id is not None
        return b"".join(self.files.pieces(self.files.get(tenant, file_id)))


def result(number: int, epoch: int = 0, *, is_failed: bool = False) -> LineResult:
    return LineResult(number, epoch, is_failed, b'{"n": %d}\n' % number)


@pytest.fixture
def desk(database: Database) -> Iterator[Desk]:
    writes = GroupedWrites(database, "tasks")
    yield Desk(database, writes)
    writes.close()
