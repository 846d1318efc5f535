"""What requests do with tasks: put them in, look at them, have them end, read what they say.

A task is there once `submit`'s future is done, whatever becomes of brokers and workers. It does not
know who does tasks (``queue.py``), nor how (``ingress/tasks/``).
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, select, update

from deployments.errors import Conflict, NotFound, RateLimited
from deployments.stores import schema
from deployments.stores.database import Database
from deployments.stores.grouping import GroupedWrites, NewRow
from deployments.stores.ids import microseconds, new_id
from deployments.stores.tasks.ending import BRIEF, end_task
from deployments.stores.tasks.removing import remove_task
from deployments.stores.tasks.rows import seconds, state_of, values_of
from deployments.types.tasks import (
    ENDED,
    UNENDED,
    TaskEnd,
    TaskEvent,
    TaskOrder,
    TaskState,
    TaskStatus,
)

TASKS = schema.tasks
EVENTS = schema.task_events

FULL_RETRY_S = 30
ROOM_AGE_S = 1.0
"""For how long a count of a tenant's tasks is good; several ingresses may exceed it together."""

MAX_TENANTS = 10_000
ONE = select(TASKS).where(TASKS.c.id == bindparam("id"), TASKS.c.tenant == bindparam("tenant"))
STATUS = select(TASKS.c.status).where(
    TASKS.c.id == bindparam("id"), TASKS.c.tenant == bindparam("tenant")
)
NEXT_EVENTS = (
    select(EVENTS.c.number, EVENTS.c.data)
    .where(
        EVENTS.c.task_id == bindparam("id"),
        EVENTS.c.number > bindparam("after"),
        EVENTS.c.number <= bindparam("last"),
    )
    .order_by(EVENTS.c.number)
)

Clock = Callable[[], float]


class TaskStore:
    """Tasks of all tenants; safe to use from many threads and processes.

    Every method raises StoreUnavailable when the database does not answer.
    """

    def __init__(self, database: Database, writes: GroupedWrites, clock: Clock = time.time) -> None:
        """Take the database, and what groups submissions to it."""
        self._database = database
        self._writes = writes
        self._clock = clock
        self._room: dict[str, tuple[float, int]] = {}

    def submit(self, order: TaskOrder, max_waiting: int) -> "Future[TaskState]":
        """Put a task in; the future is done when it is on the disk.

        The future raises RateLimited: the tenant has `max_waiting` tasks that have not ended.
        """
        now = microseconds(self._clock())
        values = values_of(order, new_id("task"), now)
        state = _new_state(values)
        is_retried = False

        def write(connection: Connection) -> TaskState | NewRow[TaskState]:
            nonlocal is_retried
            known = _row(connection, values["id"]) if is_retried else None
            is_retried = True
            if known is not None:
                return state
            self._take_room(connection, order.tenant, max_waiting)
            return NewRow(TASKS, values, state)

        return self._writes.submit(write)

    def get(self, tenant: str, id_: str) -> TaskState:
        """Return a task of a tenant's; raises NotFound."""
        with self._database.read() as connection:
            row = connection.execute(ONE, {"id": id_, "tenant": tenant}).one_or_none()
        if row is None:
            raise unknown()
        return state_of(row)

    def status(self, tenant: str, id_: str) -> TaskStatus:
        """Return how a task is, at the least cost; raises NotFound."""
        rows = self._database.rows(STATUS, {"id": id_, "tenant": tenant})
        if not rows:
            raise unknown()
        status: TaskStatus = rows[0][0]
        return status

    def find(
        self,
        tenant: str,
        *,
        limit: int,
        before: str = "",
        status: TaskStatus | None = None,
        key_id: str | None = None,
    ) -> list[TaskState]:
        """Return tasks without their outputs, the newest first; those older than `before`."""
        statement = select(*BRIEF).where(TASKS.c.tenant == tenant)
        if before:
            statement = statement.where(TASKS.c.id < before)
        if status is not None:
            statement = statement.where(TASKS.c.status == status)
        if key_id is not None:
            statement = statement.where(TASKS.c.key_id == key_id)
        with self._database.read() as connection:
            found = connection.execute(statement.order_by(TASKS.c.id.desc()).limit(limit))
            return [state_of(row) for row in found]

    def events(self, id_: str, after: int, limit: int) -> Sequence[TaskEvent]:
        """Return what a streamed task said after its event of a number, in order."""
        rows = self._database.rows(NEXT_EVENTS, {"id": id_, "after": after, "last": after + limit})
        return [TaskEvent(number, bytes(data)) for number, data in rows]

    def cancel(self, tenant: str, id_: str) -> TaskState:
        """Have a task end; one that runs is told soon, one that has ended stays as it is.

        Raises:
            NotFound: the tenant has no such task.
        """
        now = microseconds(self._clock())
        mine = (TASKS.c.id == id_, TASKS.c.tenant == tenant)
        with self._database.write() as connection:
            row = _require(connection, *mine)
            if row.status in UNENDED:
                connection.execute(update(TASKS).where(*mine).values(is_cancelling=True))
            if row.status == "PENDING":
                end_task(connection, row, TaskEnd(status="CANCELLED"), now)
        return self.get(tenant, id_)

    def retry(self, tenant: str, id_: str) -> TaskState:
        """Have a task that failed, or was cancelled, done again.

        Raises:
            NotFound: the tenant has no such task.
            Conflict: it has not failed, or its request is erased.
        """
        mine = (TASKS.c.id == id_, TASKS.c.tenant == tenant)
        with self._database.write() as connection:
            row = _require(connection, *mine)
            if row.status not in ("FAILED", "CANCELLED"):
                raise Conflict(f"the task is {row.status}: only one that failed is done again")
            if row.is_erased:
                raise Conflict("what the task was asked is erased")
            connection.execute(update(TASKS).where(*mine).values(anew(row)))
        return self.get(tenant, id_)

    def delete(self, tenant: str, id_: str) -> None:
        """Remove a task that has ended, and all that it said.

        Raises:
            NotFound: the tenant has no such task.
            Conflict: it has not ended.
        """
        with self._database.write() as connection:
            row = _require(connection, TASKS.c.id == id_, TASKS.c.tenant == tenant)
            if row.status not in ENDED:
                raise Conflict("the task has not ended: cancel it first")
            remove_task(connection, id_)

    def _take_room(self, connection: Connection, tenant: str, max_waiting: int) -> None:
        """Count what a tenant has waiting, unless that was done a moment ago; of one thread."""
        checked_at, left = self._room.get(tenant, (0.0, 0))
        now = time.monotonic()
        if left <= 0 or now - checked_at > ROOM_AGE_S:
            unended = (TASKS.c.tenant == tenant, TASKS.c.status.in_(UNENDED))
            waiting = select(func.count()).select_from(TASKS).where(*unended)
            checked_at, left = now, max_waiting - connection.scalars(waiting).one()
        if left <= 0:
            error = RateLimited("this tenant has all the tasks waiting that it may have")
            error.retry_after_s = FULL_RETRY_S
            raise error
        if len(self._room) >= MAX_TENANTS:
            self._room.clear()
        self._room[tenant] = (checked_at, left - 1)


def unknown() -> NotFound:
    """Return the error for an id that no task of the caller's has."""
    return NotFound("there is no task with this id")


def anew(row: Row[Any]) -> dict[str, Any]:
    """Return what changes of a row when its task begins its life again."""
    return {
        "status": "PENDING",
        "owner": "",
        "is_cancelling": False,
        "num_lost": 0,
        "num_failures": 0,
        "retry_at": 0,
        "deadline": 0,
        "expires_at": 0,
        "started_at": None,
        "completed_at": None,
        "progress": [0, 0, 0],
        "output": None,
        "error": None,
        "usage": None,
    }


def _row(connection: Connection, id_: str) -> Row[Any] | None:
    return connection.execute(select(TASKS.c.id).where(TASKS.c.id == id_)).one_or_none()


def _require(connection: Connection, *where: Any) -> Row[Any]:
    row = connection.execute(select(*BRIEF).where(*where).with_for_update()).one_or_none()
    if row is None:
        raise unknown()
    return row


def _new_state(values: dict[str, Any]) -> TaskState:
    """Return the state of a task that has just been put in."""
    return TaskState(
        id=values["id"],
        tenant=values["tenant"],
        key_id=values["key_id"],
        path=values["path"],
        status="PENDING",
        priority=values["priority"],
        is_streamed=values["is_streamed"],
        is_cancelling=False,
        is_erased=False,
        attempt=0,
        created_at=seconds(values["created_at"]),
        not_before=seconds(values["not_before"]),
        deadline=seconds(values["deadline"]),
        webhook=values["webhook"],
    )
