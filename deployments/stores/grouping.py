"""Group commits: what many callers write at the same time is one transaction, and one flush.

Source: a transaction that is on the disk costs 1 to 3 ms however little it writes, so one writer
alone commits a few hundred times a second.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from sqlalchemy import Connection

from deployments.errors import StoreUnavailable
from deployments.stores.database import Database

MAX_GROUP = 256

Result = TypeVar("Result")
Write = Callable[[Connection], Any]
Waiting = tuple[Write, "Future[Any]"]


class GroupedWrites:
    """Writes from any thread, in the order in which they come; begins a thread when first used."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name
        self._waiting: deque[Waiting] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def submit(self, write: Callable[[Connection], Result]) -> "Future[Result]":
        """Have something written; the future is done when it is on the disk, or not at all.

        Args:
            write: may be called again, on another connection, when its group fails.

        The future raises what `write` raises, or StoreUnavailable.
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
            if len(group) == 1 or not self._write(group):
                for one in group:
                    self._write_alone(one)

    def _next(self) -> list[Waiting]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            return [self._waiting.popleft() for _ in range(min(MAX_GROUP, len(self._waiting)))]

    def _write(self, group: Sequence[Waiting]) -> bool:
        """Write several in one transaction; False: nothing of it is written."""
        try:
            with self._database.write() as connection:
                results = [write(connection) for write, _ in group]
        except Exception:  # which one it was shows when each is tried alone
            return False
        for (_, done), result in zip(group, results, strict=True):
            done.set_result(result)
        return True

    def _write_alone(self, one: Waiting) -> None:
        write, done = one
        try:
            with self._database.write() as connection:
                result = write(connection)
        except Exception as error:  # whatever it is, the thread goes on: others wait for it
            done.set_exception(error)
        else:
            done.set_result(result)
