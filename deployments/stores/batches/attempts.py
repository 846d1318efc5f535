"""What a batch's job does: one attempt at a time writes, and each finished line is written once.

The number of the task's attempt is the fence: whoever began later has it, and what an earlier one
says is not heard. It does not know how a line is done, nor what makes one sound.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from deployments.stores import schema
from deployments.stores.batches import settling
from deployments.stores.batches.rows import BATCHES, batch_of, fault_values, held_batch, moved
from deployments.stores.database import Database
from deployments.stores.ids import microseconds
from deployments.types.batches import (
    BATCH_ENDS,
    BatchEnd,
    BatchLine,
    BatchState,
    LineCounts,
    LineFault,
    LineResult,
)

LINES = schema.batch_lines
INSERTED = 1000
Clock = Callable[[], float]

RECORD = (
    update(LINES)
    .where(
        LINES.c.batch_id == bindparam("of_batch"),
        LINES.c.line == bindparam("of_line"),
        LINES.c.epoch == bindparam("of_epoch"),
        LINES.c.data.is_(None),
    )
    .values(data=bindparam("said"), num_bytes=bindparam("size"), is_failed=bindparam("failed"))
)


@dataclass(frozen=True, slots=True)
class OpenLine:
    """A line that is not done."""

    number: int
    epoch: int


class BatchAttempts:
    """The batches as jobs have them; safe to use from many threads and processes.

    Every method raises StoreUnavailable when the database does not answer, and is safe to repeat.
    """

    def __init__(self, database: Database, clock: Clock = time.time) -> None:
        self._database = database
        self._clock = clock

    def begin(self, id_: str, attempt: int) -> BatchState | None:
        """Take over from earlier attempts; None: there is no such batch, or a later attempt."""
        with self._database.write() as connection:
            row = held_batch(connection, id_)
            if row is None or row.attempt > attempt:
                return None
            mine = update(BATCHES).where(BATCHES.c.id == id_)
            connection.execute(mine.values(attempt=attempt))
            return batch_of(row)

    def refuse(self, id_: str, attempt: int, faults: Sequence[LineFault]) -> bool:
        """End a batch whose input cannot be done; False: the attempt does not count."""
        now = microseconds(self._clock())
        with self._database.write() as connection:
            row = _held(connection, id_, attempt)
            if row is None:
                return False
            values = {
                **moved(row, "failed", now),
                "verdict": "failed",
                "faults": [fault_values(fault) for fault in faults],
            }
            connection.execute(update(BATCHES).where(BATCHES.c.id == id_).values(values))
        return True

    def accept(self, id_: str, attempt: int, lines: Sequence[BatchLine]) -> bool:
        """Write down the lines of a sound input; False: the attempt does not count."""
        rows = [
            {
                "batch_id": id_,
                "line": line.number,
                "custom_id": line.custom_id,
                "collection": line.collection,
                "epoch": 0,
                "is_failed": False,
                "num_bytes": 0,
            }
            for line in lines
        ]
        with self._database.write() as connection:
            row = _held(connection, id_, attempt)
            if row is None or row.status != "validating":
                return row is not None
            connection.execute(delete(LINES).where(LINES.c.batch_id == id_))
            for start in range(0, len(rows), INSERTED):
                connection.execute(insert(LINES), rows[start : start + INSERTED])
            now = microseconds(self._clock())
            values = {**moved(row, "in_progress", now), "num_lines": len(rows)}
            connection.execute(update(BATCHES).where(BATCHES.c.id == id_).values(values))
        return True

    def open_lines(self, id_: str, first: int, last: int) -> list[OpenLine]:
        """Return which of some lines are not done, and their epochs as they are now."""
        statement = select(LINES.c.line, LINES.c.epoch).where(
            LINES.c.batch_id == id_, LINES.c.line.between(first, last), LINES.c.data.is_(None)
        )
        with self._database.read() as connection:
            found = connection.execute(statement.order_by(LINES.c.line))
            return [OpenLine(row.line, row.epoch) for row in found]

    def has_open_lines(self, id_: str) -> bool:
        """Return whether any line is not done."""
        undone = select(LINES.c.line).where(LINES.c.batch_id == id_, LINES.c.data.is_(None))
        with self._database.read() as connection:
            return connection.execute(undone.limit(1)).first() is not None

    def record(self, id_: str, attempt: int, results: Sequence[LineResult]) -> LineCounts | None:
        """Write down what lines came to; return the counts, None: the attempt does not count.

        A line whose collection was erased from since it was begun stays open.
        """
        with self._database.write() as connection:
            row = _held(connection, id_, attempt)
            if row is None:
                return None
            written = [result for result in results if _write(connection, id_, result)]
            num_failed = sum(result.is_failed for result in written)
            counts = LineCounts(
                row.num_lines,
                row.num_completed + len(written) - num_failed,
                row.num_failed + num_failed,
            )
            values = {"num_completed": counts.completed, "num_failed": counts.failed}
            connection.execute(update(BATCHES).where(BATCHES.c.id == id_).values(values))
        return counts

    def finish(self, id_: str, attempt: int) -> BatchState | None:
        """Bring a batch to its end whose lines are done; None: the attempt does not count."""
        now = microseconds(self._clock())
        with self._database.write() as connection:
            row = _held(connection, id_, attempt)
            if row is not None:
                is_cancelled = row.status == "cancelling"
                verdict: BatchEnd = "cancelled" if is_cancelled else "completed"
                settling.decide(connection, row, verdict, now)
        return self.complete(id_)

    def complete(self, id_: str) -> BatchState | None:
        """Do what is left of an end that was decided; None: none was, or the batch is gone."""
        with self._database.read() as connection:
            row = connection.execute(select(BATCHES).where(BATCHES.c.id == id_)).one_or_none()
        if row is None or not row.verdict:
            return None
        settling.complete(self._database, id_, microseconds(self._clock()))
        with self._database.read() as connection:
            row = connection.execute(select(BATCHES).where(BATCHES.c.id == id_)).one_or_none()
        return None if row is None else batch_of(row)


def _held(connection: Connection, id_: str, attempt: int) -> Row[Any] | None:
    """Return the row of a batch that is this attempt's to write to, held."""
    row = held_batch(connection, id_)
    if row is None or row.attempt != attempt or row.verdict or row.status in BATCH_ENDS:
        return None
    return row


def _write(connection: Connection, id_: str, result: LineResult) -> bool:
    values = {
        "of_batch": id_,
        "of_line": result.number,
        "of_epoch": result.epoch,
        "said": result.data,
        "size": len(result.data),
        "failed": result.is_failed,
    }
    return bool(connection.execute(RECORD, values).rowcount)
