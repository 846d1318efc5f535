"""What workers do with tasks: claim, go on saying that they live, and write down what came of it.

A worker is known by an id of its own, and alive while its beat grows. Whoever sees the same beat
for `DEAD_S` of its own, monotonic time buries the worker: its tasks may be claimed again, and
nothing that it says of them later is heard. So no two clocks have to agree, and none has to be
right. It does not know how a task is done.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal_column,
    not_,
    or_,
    select,
    update,
)

from deployments.stores import schema
from deployments.stores.database import Database
from deployments.stores.grouping import GroupedWrites
from deployments.stores.ids import microseconds, new_id
from deployments.stores.tasks.notices import announce
from deployments.stores.tasks.rows import claim_of
from deployments.types.tasks import Backlog, Claim, TaskEnd, TaskProgress

TASKS = schema.tasks
EVENTS = schema.task_events
WORKERS = schema.task_workers
DELIVERIES = schema.webhook_deliveries

BEAT_S = 3.0
DEAD_S = 15.0

MAX_LOST = 3
"""Attempts whose worker died; after so many the task itself is taken for the cause."""

MAX_FAILURES = 5
RETRY_BASE_S = 1.0
RETRY_MAX_S = 60.0
EXPIRED_PAGE = 500

LOST = {
    "message": "workers died of this task; it is not tried again by itself",
    "type": "server_error",
    "code": "task_quarantined",
    "param": None,
}
LATE = {
    "message": "the task did not begin, or end, before its deadline",
    "type": "server_error",
    "code": "deadline_exceeded",
    "param": None,
}

Clock = Callable[[], float]

PENDING: ColumnElement[str] = literal_column("'PENDING'")
RUNNING: ColumnElement[str] = literal_column("'RUNNING'")
"""Written out, since `Database.rows` takes statements whose values are all named."""

READY = and_(
    TASKS.c.status == PENDING,
    TASKS.c.not_before <= bindparam("now"),
    # A clock that fell must not delay what would have been retried within a minute.
    or_(TASKS.c.retry_at <= bindparam("now"), TASKS.c.retry_at > bindparam("latest")),
)
HAS_READY = select(exists().where(READY))
COUNTS = (
    select(TASKS.c.status, READY.label("is_ready"), func.count())
    .where(or_(TASKS.c.status == PENDING, TASKS.c.status == RUNNING))
    .group_by(TASKS.c.status, READY)
)


class TaskQueue:
    """The tasks as one worker has them; safe to use from many threads.

    Every method, and every future, raises StoreUnavailable when the database does not answer.
    """

    def __init__(self, database: Database, writes: GroupedWrites, clock: Clock = time.time) -> None:
        self._database = database
        self._writes = writes
        self._clock = clock
        self.worker = new_id("wrk")

    def has_ready(self) -> bool:
        """Return whether a task could begin now, at the least cost."""
        return bool(self._database.rows(HAS_READY, self._moment())[0][0])

    def backlog(self) -> Backlog:
        """Return how many tasks there are to do."""
        ready = running = scheduled = 0
        for status, is_ready, count in self._database.rows(COUNTS, self._moment()):
            if status == "RUNNING":
                running += count
            elif is_ready:
                ready += count
            else:
                scheduled += count
        return Backlog(ready, running, scheduled)

    def enlist(self) -> None:
        """Begin a life under a new id."""
        self.worker = new_id("wrk")
        with self._database.write() as connection:
            connection.execute(insert(WORKERS).values(id=self.worker, beat=0))

    def beat(self) -> bool:
        """Say that the worker lives; False: it was taken for dead, and holds no task any more."""
        mine = update(WORKERS).where(WORKERS.c.id == self.worker)
        with self._database.write() as connection:
            return bool(connection.execute(mine.values(beat=WORKERS.c.beat + 1)).rowcount)

    def beats(self) -> Mapping[str, int]:
        """Return the other workers, and how often each has said that it lives."""
        with self._database.read() as connection:
            rows = connection.execute(select(WORKERS).where(WORKERS.c.id != self.worker))
            return {row.id: row.beat for row in rows}

    def bury(self, worker: str, beat: int) -> int:
        """Give a dead worker's tasks back; return how many there were.

        Args:
            worker: that was last seen alive long ago.
            beat: its last one; if it has another by now, nothing happens.
        """
        with self._database.write() as connection:
            dead = delete(WORKERS).where(WORKERS.c.id == worker, WORKERS.c.beat == beat)
            if not connection.execute(dead).rowcount:
                return 0
            return self._give_back_all(connection, worker)

    def leave(self) -> None:
        """End this life; what the worker still holds is for others, without blame."""
        with self._database.write() as connection:
            connection.execute(delete(WORKERS).where(WORKERS.c.id == self.worker))
            left = (TASKS.c.owner == self.worker, TASKS.c.status == "RUNNING")
            connection.execute(update(TASKS).where(*left).values(status="PENDING", owner=""))

    def give_back_orphans(self) -> int:
        """Give back what workers hold that are not there at all; return how many tasks."""
        known = select(WORKERS.c.id)
        orphans = select(TASKS.c.owner).where(
            TASKS.c.status == "RUNNING", TASKS.c.owner.not_in(known)
        )
        with self._database.write() as connection:
            owners = connection.scalars(orphans.distinct()).all()
            return sum(self._give_back_all(connection, owner) for owner in owners)

    def claim(self, max_tasks: int, *, min_age_s: float = 0.0) -> "Future[list[Claim]]":
        """Take tasks that could begin now: the most urgent, of those the oldest.

        What is past its deadline ends here instead.

        Args:
            max_tasks: so many at most.
            min_age_s: of tasks that were never begun and waited for no time of their own, only
                those that are so old.
        """

        def write(connection: Connection) -> list[Claim]:
            found = (
                []
                if not _lives(connection, self.worker)
                else self._next(connection, max_tasks, min_age_s)
            )
            now = self._now()
            late = [row for row in found if 0 < row.deadline <= now]
            for row in late:
                _end(connection, row, TaskEnd(status="FAILED", error=LATE), now)
            ready = [row for row in found if not 0 < row.deadline <= now]
            for row in ready:
                values = {
                    "status": "RUNNING",
                    "owner": self.worker,
                    "attempt": row.attempt + 1,
                    "started_at": now if row.started_at is None else row.started_at,
                }
                connection.execute(update(TASKS).where(TASKS.c.id == row.id).values(values))
            return [claim_of(row) for row in ready]

        return self._writes.submit(write)

    def finish(self, claim: Claim, end: TaskEnd) -> "Future[bool]":
        """Write down how an attempt ended; False: it is not the one that counts."""

        def write(connection: Connection) -> bool:
            row = self._held(connection, claim)
            if row is not None:
                as_asked = TaskEnd(status="CANCELLED") if _is_void(row, end) else end
                _end(connection, row, as_asked, self._now())
            return row is not None

        return self._writes.submit(write)

    def fail(
        self, claim: Claim, error: Mapping[str, Any], after_s: float | None = None
    ) -> "Future[bool]":
        """Have an attempt made again that failed; one that failed too often ends.

        Args:
            claim: to the attempt.
            error: the object that the API shows.
            after_s: the pause that was asked for; by default it grows with the failures.
        """

        def write(connection: Connection) -> bool:
            row = self._held(connection, claim)
            if row is None:
                return False
            if row.is_cancelling:
                _end(connection, row, TaskEnd(status="CANCELLED"), self._now())
            elif row.num_failures + 1 >= MAX_FAILURES:
                _end(connection, row, TaskEnd(status="FAILED", error=error), self._now())
            else:
                num_failures = row.num_failures + 1
                self._put_back(connection, row, after_s, num_failures=num_failures)
            return True

        return self._writes.submit(write)

    def give_back(self, claim: Claim, after_s: float = 0.0) -> "Future[bool]":
        """Let others do a task; nobody failed: there is no room for it, or the worker goes."""

        def write(connection: Connection) -> bool:
            row = self._held(connection, claim)
            if row is not None:
                self._put_back(connection, row, after_s)
            return row is not None

        return self._writes.submit(write)

    def say(self, claim: Claim, events: Sequence[bytes]) -> "Future[bool]":
        """Add events to what a streamed task has said; False: the attempt does not count."""

        def write(connection: Connection) -> bool:
            if self._held(connection, claim) is None:
                return False
            last = select(func.max(EVENTS.c.number)).where(EVENTS.c.task_id == claim.task_id)
            first = (connection.scalars(last).one() or 0) + 1
            rows = [
                {"task_id": claim.task_id, "number": first + index, "data": data}
                for index, data in enumerate(events)
            ]
            connection.execute(insert(EVENTS), rows)
            return True

        return self._writes.submit(write)

    def progress(self, claim: Claim, progress: TaskProgress) -> "Future[bool]":
        """Write down how far an attempt is; False: it does not count."""

        def write(connection: Connection) -> bool:
            if self._held(connection, claim) is None:
                return False
            values = {"progress": [progress.done, progress.total, progress.failed]}
            connection.execute(update(TASKS).where(TASKS.c.id == claim.task_id).values(values))
            return True

        return self._writes.submit(write)

    def to_stop(self, claims: Sequence[Claim]) -> list[Claim]:
        """Return those that need not go on: cancelled, past their deadline, or not ours."""
        if not claims:
            return []
        now = self._now()
        statement = select(
            TASKS.c.id, TASKS.c.attempt, TASKS.c.is_cancelling, TASKS.c.deadline
        ).where(TASKS.c.owner == self.worker, TASKS.c.status == "RUNNING")
        with self._database.read() as connection:
            held = {row.id: row for row in connection.execute(statement)}
        return [
            claim
            for claim in claims
            if (row := held.get(claim.task_id)) is None
            or row.attempt != claim.attempt
            or row.is_cancelling
            or 0 < row.deadline <= now
        ]

    def expire(self) -> int:
        """Remove tasks whose results were kept long enough; return how many, up to a page."""
        late = (
            select(TASKS.c.id)
            .where(TASKS.c.expires_at > 0, TASKS.c.expires_at <= self._now())
            .limit(EXPIRED_PAGE)
        )
        with self._database.write() as connection:
            ids = connection.scalars(late).all()
            if ids:
                connection.execute(delete(EVENTS).where(EVENTS.c.task_id.in_(ids)))
                connection.execute(delete(DELIVERIES).where(DELIVERIES.c.subject.in_(ids)))
                connection.execute(delete(TASKS).where(TASKS.c.id.in_(ids)))
        return len(ids)

    def _now(self) -> int:
        return microseconds(self._clock())

    def _moment(self) -> dict[str, int]:
        now = self._now()
        return {"now": now, "latest": now + microseconds(RETRY_MAX_S)}

    def _next(self, connection: Connection, max_tasks: int, min_age_s: float) -> Sequence[Row[Any]]:
        statement = select(TASKS).where(READY)
        if min_age_s > 0:
            now, age = self._now(), microseconds(min_age_s)
            is_first = and_(TASKS.c.attempt == 0, TASKS.c.not_before == 0)
            is_new = TASKS.c.created_at.between(now - age, now + age)  # later: the clock fell
            statement = statement.where(not_(and_(is_first, is_new)))
        order = (TASKS.c.priority.desc(), TASKS.c.id)
        statement = statement.order_by(*order).limit(max_tasks).with_for_update(skip_locked=True)
        return connection.execute(statement, self._moment()).all()

    def _held(self, connection: Connection, claim: Claim) -> Row[Any] | None:
        """Return the row of a task that is ours in this attempt, held against other writers."""
        statement = select(*BRIEF).where(
            TASKS.c.id == claim.task_id,
            TASKS.c.attempt == claim.attempt,
            TASKS.c.owner == self.worker,
            TASKS.c.status == "RUNNING",
        )
        return connection.execute(statement.with_for_update()).one_or_none()

    def _put_back(
        self, connection: Connection, row: Row[Any], after_s: float | None, **values: Any
    ) -> None:
        num_failures = values.get("num_failures", 0)
        pause_s = _backoff_s(num_failures) if after_s is None else min(after_s, RETRY_MAX_S)
        values |= {
            "status": "PENDING",
            "owner": "",
            "retry_at": self._now() + microseconds(pause_s) if pause_s > 0 else 0,
        }
        connection.execute(update(TASKS).where(TASKS.c.id == row.id).values(values))

    def _give_back_all(self, connection: Connection, worker: str) -> int:
        held = select(*BRIEF).where(TASKS.c.owner == worker, TASKS.c.status == "RUNNING")
        rows = connection.execute(held.with_for_update()).all()
        for row in rows:
            if row.is_cancelling:
                _end(connection, row, TaskEnd(status="CANCELLED"), self._now())
            elif row.num_lost + 1 >= MAX_LOST:
                _end(connection, row, TaskEnd(status="FAILED", error=LOST), self._now())
            else:
                self._put_back(connection, row, 0.0, num_lost=row.num_lost + 1)
        return len(rows)


BRIEF = [column for column in TASKS.c if column.name not in ("body", "output")]


def _lives(connection: Connection, worker: str) -> bool:
    """Return whether a worker is not buried, and see that it is not before this has ended."""
    mine = select(WORKERS.c.id).where(WORKERS.c.id == worker)
    return connection.execute(mine.with_for_update(read=True)).one_or_none() is not None


def _is_void(row: Row[Any], end: TaskEnd) -> bool:
    """Return whether a task was cancelled before its end came."""
    return bool(row.is_cancelling) and end.status != "CANCELLED"


def _end(connection: Connection, row: Row[Any], end: TaskEnd, now: int) -> None:
    values = {
        "status": end.status,
        "owner": "",
        "completed_at": now,
        "expires_at": now + row.kept_us,
        "output": end.output,
        "error": None if end.error is None else dict(end.error),
        "usage": None if end.usage is None else dict(end.usage),
    }
    connection.execute(update(TASKS).where(TASKS.c.id == row.id).values(values))
    announce(connection, row, end.status, now)


def _backoff_s(num_failures: int) -> float:
    """Return a pause that doubles with each failure, half of it left to chance."""
    full = min(RETRY_MAX_S, RETRY_BASE_S * 2.0 ** max(0, num_failures - 1))
    return full * random.uniform(0.5, 1.0)  # noqa: S311  # nobody gains by guessing it
