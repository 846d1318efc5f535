"""The workers: each says that it lives, and gives back what the dead ones held.

A worker is known by an id of its own, and alive while its beat grows. Whoever sees the same beat
for long by its own, monotonic clock buries the worker: its tasks may be claimed again, and nothing
that it says of them later is heard. So no two clocks have to agree, and none has to be right.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, Select, delete, insert, select, update

from deployments.stores import schema
from deployments.stores.database import Database
from deployments.stores.ids import microseconds, new_id
from deployments.stores.tasks.ending import BRIEF, lose, put_back

TASKS = schema.tasks
WORKERS = schema.task_workers

Clock = Callable[[], float]


class Workers:
    """All workers, as one of them has them; safe to use from many threads.

    Every method raises StoreUnavailable when the database does not answer.
    """

    def __init__(self, database: Database, clock: Clock = time.time) -> None:
        self._database = database
        self._clock = clock
        self.worker = new_id("wrk")

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
            for row in connection.execute(_held_by(self.worker)).all():
                put_back(connection, row, self._now())

    def give_back_orphans(self) -> int:
        """Give back what workers hold that are not there at all; return how many tasks."""
        known = select(WORKERS.c.id)
        orphans = select(TASKS.c.owner).where(
            TASKS.c.status == "RUNNING", TASKS.c.owner.not_in(known)
        )
        with self._database.read() as connection:
            owners = connection.scalars(orphans.distinct()).all()
        if not owners:
            return 0
        with self._database.write() as connection:
            return sum(self._give_back_all(connection, owner) for owner in owners)

    def _give_back_all(self, connection: Connection, worker: str) -> int:
        rows = connection.execute(_held_by(worker)).all()
        for row in rows:
            lose(connection, row, self._now())
        return len(rows)

    def _now(self) -> int:
        return microseconds(self._clock())


def _held_by(worker: str) -> Select[Any]:
    held = select(*BRIEF).where(TASKS.c.owner == worker, TASKS.c.status == "RUNNING")
    return held.order_by(TASKS.c.id).with_for_update()


def lives(connection: Connection, worker: str) -> bool:
    """Return whether a worker is not buried, and see that it is not before this has ended."""
    mine = select(WORKERS.c.id).where(WORKERS.c.id == worker)
    return connection.execute(mine.with_for_update(read=True)).one_or_none() is not None
