"""Group commits: what many callers write at the same time is one transaction, and one flush.

Source: a transaction that is on the disk costs 1 to 3 ms however little it writes, so one writer
alone commits a few hundred times a second.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Table

from deployments.errors import RagError, StoreUnavailable
from deployments.stores.database import Database, insert_rows

MAX_GROUP = 256

Result = TypeVar("Result")
Write = Callable[[Connection], Any]
Waiting = tuple[Write, "Future[Any]"]


@dataclass(frozen=True, slots=True)
class NewRow(Generic[Result]):
    """What a write may return that is one row: those of a group are inserted by few statements."""

    table: Table
    values: Mapping[str, Any]
    result: Result
    """Of the future, once the row is there."""


def yield_to_others() -> None:
    """Let other threads have the interpreter first: what they are about to submit joins the group.

    Source: a group commit changes hands with them a dozen times. With this there were 1.1 to 1.7
    changes for a submission over HTTP instead of 1.7 to 2.4, and a tenth more submissions.
    """
    time.sleep(0)


class GroupedWrites:
    """Writes from any thread, in the order in which they come; begins a thread when first used."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name
        self._waiting: deque[Waiting] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def submit(self, write: Callable[[Connection], Result | NewRow[Result]]) -> "Future[Result]":
        """Have something written; the future is done when it is on the disk, or not at all.

        Args:
            write: may be called again, on another connection, when its group fails. A RagError of
                its own it raises before it has changed anything: the others go on.

        The future raises what `write` raises, or StoreUnavailable; then whether it is written is
        not known.

        Raises:
            StoreUnavailable: this is closed.
        """
        done: Future[Result] = Future()
        done.set_running_or_notify_cancel()  # whoever waits may leave; it is written
        with self._changed:
            if self._is_closed:
                raise StoreUnavailable("this process is going")
            self._waiting.append((write, done))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify()
        return done

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what waits, and end."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while group := self._next():
            if not self._write(group):
                self._write_each(group)

    def _next(self) -> list[Waiting]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
        yield_to_others()
        with self._changed:
            return [self._waiting.popleft() for _ in range(min(MAX_GROUP, len(self._waiting)))]

    def _write(self, group: Sequence[Waiting]) -> bool:
        """Write several in one transaction; False: it failed, and each is to be tried alone."""
        try:
            with self._database.write() as connection:
                outcomes = [_outcome(write, connection) for write, _ in group]
                _insert(connection, [result for result, _ in outcomes])
        except Exception as error:  # which one it was shows when each is tried alone
            if len(group) == 1:
                group[0][1].set_exception(error)
            return len(group) == 1
        for (_, done), (result, refusal) in zip(group, outcomes, strict=True):
            if refusal is None:
                done.set_result(result.result if isinstance(result, NewRow) else result)
            else:
                done.set_exception(refusal)
        return True

    def _write_each(self, group: Sequence[Waiting]) -> None:
        """Write each alone; where the database does not answer, none of the rest waits for it."""
        for index, one in enumerate(group):
            self._write([one])
            error = one[1].exception()
            if isinstance(error, StoreUnavailable):
                for _, done in group[index + 1 :]:
                    done.set_exception(StoreUnavailable(error.message))
                return


def _outcome(write: Write, connection: Connection) -> tuple[Any, RagError | None]:
    try:
        return write(connection), None
    except RagError as refusal:  # the database's own errors are none yet: these end the transaction
        return None, refusal


def _insert(connection: Connection, results: Sequence[Any]) -> None:
    """Insert the rows that are among what writes returned, by few statements for each table."""
    rows: dict[Table, list[Mapping[str, Any]]] = {}
    for result in results:
        if isinstance(result, NewRow):
            rows.setdefault(result.table, []).append(result.values)
    for table, values in rows.items():
        insert_rows(connection, table, values)
