"""What requests do with batches: create, look at and cancel them; and what becomes of old ones.

A batch and its task come in one transaction. Whoever looks at a batch whose task has ended brings
it to its end (``settling.py``), so it depends on no process that it gets its files. It does not
know how lines are done (``attempts.py``).
"""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import orjson
from sqlalchemy import Row, delete, func, insert, select, update

from deployments.errors import NotFound, RateLimited
from deployments.stores import schema
from deployments.stores.batches import settling
from deployments.stores.batches.rows import (
    BATCH_PREFIX,
    BATCHES,
    FILES,
    batch_of,
    held_batch,
    moved,
    unknown_batch,
)
from deployments.stores.content import invalid
from deployments.stores.database import Database
from deployments.stores.ids import microseconds, new_id
from deployments.stores.tasks.rows import values_of
from deployments.stores.tasks.store import TaskStore
from deployments.types.batches import BATCH_ENDS, BatchOrder, BatchState
from deployments.types.tasks import LOWEST, TaskOrder

TASKS = schema.tasks
LINES = schema.batch_lines

PATH = "/v1/batches"
FULL_RETRY_S = 60
KEPT_S = 90 * 86_400.0
"""For how long a batch is known after it could have ended last; its files expire sooner."""

SWEPT = 100
STOPPABLE = ("validating", "in_progress")
Clock = Callable[[], float]


class BatchStore:
    """Batches of all tenants; safe to use from many threads and processes.

    Every method raises StoreUnavailable when the database does not answer.
    """

    def __init__(self, database: Database, tasks: TaskStore, clock: Clock = time.time) -> None:
        self._database = database
        self._tasks = tasks
        self._clock = clock

    def create(self, order: BatchOrder, max_under_way: int) -> BatchState:
        """Put a batch in, with the task that does it.

        Raises:
            NotFound: the tenant has no such file.
            InvalidRequest: the file was uploaded for something else.
            RateLimited: the tenant has `max_under_way` batches that have not ended.
        """
        now = microseconds(self._clock())
        batch = _values(order, now)
        body = orjson.dumps({"batch_id": batch["id"]})
        task = TaskOrder(
            tenant=order.tenant,
            key_id=order.key_id,
            path=PATH,
            body=body,
            priority=LOWEST,
            deadline=batch["expires_at"] / 1_000_000,
        )
        file = select(FILES).where(
            FILES.c.id == order.input_file_id, FILES.c.tenant == order.tenant, FILES.c.is_whole
        )
        mine = (BATCHES.c.tenant == order.tenant, BATCHES.c.status.not_in(BATCH_ENDS))
        with self._database.write() as connection:
            found = connection.execute(file.with_for_update()).one_or_none()
            _check_input(found, now)
            under_way = connection.scalars(select(func.count()).select_from(BATCHES).where(*mine))
            if under_way.one() >= max_under_way:
                raise _full()
            connection.execute(insert(TASKS).values(values_of(task, batch["task_id"], now)))
            connection.execute(insert(BATCHES).values(batch))
        return self.get(order.tenant, batch["id"])

    def get(self, tenant: str, id_: str) -> BatchState:
        """Return a batch of a tenant's; raises NotFound."""
        statement = settling.WITH_TASK.where(BATCHES.c.id == id_, BATCHES.c.tenant == tenant)
        with self._database.read() as connection:
            row = connection.execute(statement).one_or_none()
        if row is None:
            raise unknown_batch()
        return self._settled(row)

    def find(self, tenant: str, *, limit: int, before: str) -> list[BatchState]:
        """Return batches, the newest first; those older than `before`."""
        statement = settling.WITH_TASK.where(BATCHES.c.tenant == tenant)
        if before:
            statement = statement.where(BATCHES.c.id < before)
        with self._database.read() as connection:
            rows = connection.execute(statement.order_by(BATCHES.c.id.desc()).limit(limit)).all()
        return [self._settled(row) for row in rows]

    def cancel(self, tenant: str, id_: str) -> BatchState:
        """Have a batch end; one that has ended stays as it is. Raises NotFound."""
        state = self.get(tenant, id_)
        if state.status not in STOPPABLE:
            return state
        try:
            # First: a crash after this leaves a batch whose task is cancelled, and so is the batch.
            self._tasks.cancel(tenant, state.task_id)
        except NotFound:
            return self.get(tenant, id_)
        with self._database.write() as connection:
            row = held_batch(connection, id_)
            if row is not None and row.status in STOPPABLE:
                values = moved(row, "cancelling", microseconds(self._clock()))
                connection.execute(update(BATCHES).where(BATCHES.c.id == id_).values(values))
        return self.get(tenant, id_)

    def sweep(self) -> int:
        """Settle batches that nobody looks at, forget old ones; return how many, up to a page."""
        now = microseconds(self._clock())
        open_ = settling.WITH_TASK.where(BATCHES.c.status.not_in(BATCH_ENDS))
        forgotten = BATCHES.c.expires_at < now - microseconds(KEPT_S)
        has_file = select(FILES.c.id).where(FILES.c.batch_id == BATCHES.c.id).exists()
        old = select(BATCHES.c.id).where(BATCHES.c.status.in_(BATCH_ENDS), forgotten, ~has_file)
        with self._database.read() as connection:
            rows = connection.execute(open_).all()
        due = [row for row in rows if settling.verdict_of(row, now) is not None][:SWEPT]
        for row in due:
            self._settled(row)
        with self._database.write() as connection:
            ids = connection.scalars(old.limit(SWEPT)).all()
            if ids:
                connection.execute(delete(LINES).where(LINES.c.batch_id.in_(ids)))
                connection.execute(delete(BATCHES).where(BATCHES.c.id.in_(ids)))
        return len(due) + len(ids)

    def _settled(self, found: Row[Any]) -> BatchState:
        """Return a batch of a row that was read, brought to its end if its task has come to one."""
        now = microseconds(self._clock())
        if settling.verdict_of(found, now) is None:
            return batch_of(found)
        statement = settling.WITH_TASK.where(BATCHES.c.id == found.id)
        with self._database.write() as connection:
            row = connection.execute(statement.with_for_update(of=BATCHES)).one()
            verdict = None if row.verdict else settling.verdict_of(row, now)
            if verdict is not None:
                settling.decide(connection, row, verdict, now)
        settling.complete(self._database, found.id, now)
        # What a job has decided ends its task in the job's own way, which may take a moment yet.
        if verdict is not None and row.task_status in ("PENDING", "RUNNING"):
            with suppress(NotFound):  # it ended meanwhile, and was removed
                self._tasks.cancel(found.tenant, found.task_id)
        with self._database.read() as connection:
            return batch_of(connection.execute(statement).one())


def _values(order: BatchOrder, now: int) -> dict[str, Any]:
    return {
        "id": new_id(BATCH_PREFIX),
        "tenant": order.tenant,
        "key_id": order.key_id,
        "task_id": new_id("task"),
        "endpoint": order.endpoint,
        "input_file_id": order.input_file_id,
        "status": "validating",
        "verdict": "",
        "attempt": 0,
        "metadata": None if order.metadata is None else dict(order.metadata),
        "faults": [],
        "moments": {},
        "num_lines": 0,
        "num_completed": 0,
        "num_failed": 0,
        "output_kept_us": microseconds(order.output_kept_s),
        "output_file_id": "",
        "error_file_id": "",
        "created_at": now,
        "expires_at": now + microseconds(order.window_s),
    }


def _check_input(file: Row[Any] | None, now: int) -> None:
    if file is None or 0 < file.expires_at <= now:
        error = NotFound("there is no file with this id")
        error.param = "input_file_id"
        raise error
    if file.purpose != "batch":
        raise invalid("the file was not uploaded with the purpose `batch`", "input_file_id")


def _full() -> RateLimited:
    error = RateLimited("this tenant has all the batches under way that it may have")
    error.retry_after_s = FULL_RETRY_S
    return error
