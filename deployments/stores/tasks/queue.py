"""What a worker does with tasks: claim, look how they are, and write down what came of them.

What is said of a task counts only from the worker that holds it, in the attempt that it claimed. It
does not know how a task is done.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from deployments.stores import schema
from deployments.stores.database import Database
from deployments.stores.grouping import GroupedWrites
from deployments.stores.ids import microseconds
from deployments.stores.tasks.choosing import COUNTS, HAS_READY, Choice, moment
from deployments.stores.tasks.ending import BRIEF, RETRY, end_task, put_back
from deployments.stores.tasks.removing import remove_late
from deployments.stores.tasks.rows import claim_of
from deployments.stores.tasks.workers import Clock, Workers, lives
from deployments.types.tasks import Backlog, Claim, TaskEnd, TaskProgress

TASKS = schema.tasks
EVENTS = schema.task_events

BEAT_S = 3.0
DEAD_S = 15.0

MAX_FAILURES = 5

LATE = {
    "message": "the task did not begin, or end, before its deadline",
    "type": "server_error",
    "code": "deadline_exceeded",
    "param": None,
}


class TaskQueue(Workers):
    """The tasks as one worker has them; safe to use from many threads.

    Every method, and every future, raises StoreUnavailable when the database does not answer.
    """

    def __init__(self, database: Database, writes: GroupedWrites, clock: Clock = time.time) -> None:
        super().__init__(database, clock)
        self._writes = writes
        self._choice = Choice()
        self._unsure: dict[str, int] = {}

    def has_ready(self) -> bool:
        """Return whether a task could begin now, at the least cost."""
        return bool(self._database.rows(HAS_READY, moment(self._now()))[0][0])

    def backlog(self) -> Backlog:
        """Return how many tasks there are to do."""
        ready = running = scheduled = 0
        for status, is_ready, count in self._database.rows(COUNTS, moment(self._now())):
            if status == "RUNNING":
                running += count
            elif is_ready:
                ready += count
            else:
                scheduled += count
        return Backlog(ready, running, scheduled)

    def claim(self, max_tasks: int, *, min_age_s: float = 0.0) -> "Future[list[Claim]]":
        """Take tasks that could begin now: the most urgent, of those each tenant's in turn.

        What is past its deadline ends here instead. A claim of which it is not known whether it was
        written down is made by the next call, if it was.

        Args:
            max_tasks: so many at most.
            min_age_s: of tasks that were never begun and waited for no time of their own, only
                those that are so old.
        """
        tried: dict[str, int] = {}

        def write(connection: Connection) -> list[Claim]:
            tried.update(self._unsure)
            self._unsure.clear()
            if not lives(connection, self.worker):
                return []
            now = self._now()
            claims = self._claimed_before(connection, tried)
            room = max_tasks - len(claims)
            if room > 0:
                rows = self._choice.rows(connection, room, now, microseconds(min_age_s))
                claims += [
                    self._begin(connection, row, now) for row in rows if not _is_late(row, now)
                ]
                for row in rows:
                    if _is_late(row, now):
                        end_task(connection, row, TaskEnd(status="FAILED", error=LATE), now)
            tried.update({claim.task_id: claim.attempt for claim in claims})
            return claims

        def note(done: "Future[list[Claim]]") -> None:
            if done.exception() is not None:  # the commit itself may have been made all the same
                self._unsure.update(tried)

        claimed = self._writes.submit(write)
        claimed.add_done_callback(note)
        return claimed

    def finish(self, claim: Claim, end: TaskEnd) -> "Future[bool]":
        """Write down how an attempt ended; False: it is not the one that counts."""

        def write(connection: Connection) -> bool:
            row = self._held(connection, claim)
            if row is not None:
                as_asked = TaskEnd(status="CANCELLED") if row.is_cancelling else end
                end_task(connection, row, as_asked, self._now())
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
            num_failures = row.num_failures + 1
            if num_failures >= MAX_FAILURES and not row.is_cancelling:
                end_task(connection, row, TaskEnd(status="FAILED", error=error), self._now())
            else:
                pause_s = RETRY.pause_s(num_failures) if after_s is None else after_s
                put_back(connection, row, self._now(), pause_s, num_failures=num_failures)
            return True

        return self._writes.submit(write)

    def give_back(self, claim: Claim, after_s: float = 0.0) -> "Future[bool]":
        """Let others do a task; nobody failed: there is no room for it, or the worker goes."""

        def write(connection: Connection) -> bool:
            row = self._held(connection, claim)
            if row is not None:
                put_back(connection, row, self._now(), after_s)
            return row is not None

        return self._writes.submit(write)

    def say(self, claim: Claim, events: Sequence[bytes]) -> "Future[bool]":
        """Add events to what a streamed task has said; False: the attempt does not count."""
        tried = 0

        def write(connection: Connection) -> bool:
            nonlocal tried
            if self._held(connection, claim) is None:
                return False
            mine = EVENTS.c.task_id == claim.task_id
            last = connection.scalar(select(func.max(EVENTS.c.number)).where(mine)) or 0
            if 0 < tried <= last:  # the commit that seemed to fail was made
                return True
            tried = last + 1
            rows = [
                {"task_id": claim.task_id, "number": tried + index, "data": data}
                for index, data in enumerate(events)
            ]
            if rows:
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
        columns = TASKS.c["id", "attempt", "is_cancelling", "deadline"]
        mine = (TASKS.c.owner == self.worker, TASKS.c.status == "RUNNING")
        with self._database.read() as connection:
            held = {row.id: row for row in connection.execute(select(*columns).where(*mine))}
        return [
            claim
            for claim in claims
            if (row := held.get(claim.task_id)) is None
            or row.attempt != claim.attempt
            or row.is_cancelling
            or _is_late(row, now)
        ]

    def expire(self) -> int:
        """Remove tasks whose results were kept long enough; return how many, up to a page.

        Whoever is still to be told of an end is told: such a delivery names the task, no more.
        """
        with self._database.write() as connection:
            return remove_late(connection, self._now())

    def _begin(self, connection: Connection, row: Row[Any], now: int) -> Claim:
        values = {
            "status": "RUNNING",
            "owner": self.worker,
            "attempt": row.attempt + 1,
            "started_at": now if row.started_at is None else row.started_at,
        }
        connection.execute(update(TASKS).where(TASKS.c.id == row.id).values(values))
        return claim_of(row)

    def _claimed_before(self, connection: Connection, tried: Mapping[str, int]) -> list[Claim]:
        """Return the claims of those that were tried that are ours after all."""
        if not tried:
            return []
        mine = (TASKS.c.owner == self.worker, TASKS.c.status == "RUNNING", TASKS.c.id.in_(tried))
        rows = connection.execute(select(TASKS).where(*mine).with_for_update()).all()
        ours = [row for row in rows if row.attempt == tried[row.id]]
        return [replace(claim_of(row), attempt=row.attempt) for row in ours]

    def _held(self, connection: Connection, claim: Claim) -> Row[Any] | None:
        """Return the row of a task that is ours in this attempt, held against other writers."""
        statement = select(*BRIEF).where(
            TASKS.c.id == claim.task_id,
            TASKS.c.attempt == claim.attempt,
            TASKS.c.owner == self.worker,
            TASKS.c.status == "RUNNING",
        )
        return connection.execute(statement.with_for_update()).one_or_none()


def _is_late(row: Row[Any], now: int) -> bool:
    return bool(0 < row.deadline <= now)
