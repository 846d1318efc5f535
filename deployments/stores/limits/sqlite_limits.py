"""Limits of one host, counted in a SQLite file that all its processes share.

Seconds are those of the host's monotonic clock, which nobody sets. It begins anew when the host
does, and what is then of the future counts as of now; so does what a clock that jumped has left.
"""

import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from deployments.errors import Overloaded
from deployments.stores.limits.admission import Admission, Budget, Busy, Cost, End, new_lease
from deployments.stores.limits.counts import settle, spend, used_by
from deployments.stores.limits.file import LimitsFile
from deployments.stores.limits.windows import DAY_S, LEASE_S, WINDOW_S, refused, standing

BUSY_TIMEOUT_S = 0.25
BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
DAMAGED = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_IOERR,  # it is shorter than it says
    sqlite3.SQLITE_READONLY,  # it has been replaced while it was open
    sqlite3.SQLITE_ERROR,  # a table is missing
}
KEPT_DAYS = 7


class SqliteLimits:
    """A `LimitStore` in a file."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Open nothing yet; the file is made at the first use."""
        self._file = LimitsFile(path)
        self._clock = clock
        self._wall_clock = wall_clock
        self._lock = threading.Lock()
        self._held: dict[str, Admission] = {}

    def take(self, budgets: Sequence[Budget], cost: Cost, *, may_wait: bool = True) -> Admission:
        """Take a cost of all budgets, or raise as `LimitStore` says."""
        lease = new_lease(budgets, cost)
        with self._write(may_wait) as connection:
            now_s, wall_s = self._clock(), self._wall_clock()
            second, day = int(now_s), int(wall_s // DAY_S)
            used = [used_by(connection, one, now_s, wall_s) for one in budgets]
            refusal = refused(budgets, used, cost)
            for budget in budgets if refusal is None else ():
                spend(connection, budget, cost, second, day)
                if lease and budget.limits.max_concurrent is not None:
                    row = (budget.subject, lease, now_s + LEASE_S)
                    connection.execute("INSERT INTO lease VALUES (?, ?, ?)", row)
        if refusal is not None:
            raise refusal  # after the commit: what was of the future is of now for good
        stands = standing(zip(budgets, (one.after(cost) for one in used), strict=True))
        admission = Admission(self, tuple(budgets), cost, second, day, stands, lease)
        if lease:
            self._held[lease] = admission
        return admission

    def finish(self, ends: Sequence[End], *, may_wait: bool = True) -> None:
        """Settle tokens, and give leases back."""
        for end in ends:
            self.forget(end.admission)
        if not any(end.changes for end in ends):
            return
        with self._write(may_wait) as connection:
            now, today = int(self._clock()), int(self._wall_clock() // DAY_S)
            for end in ends:
                for budget in end.admission.budgets:
                    settle(connection, budget, end, now, today)

    def forget(self, admission: Admission) -> None:
        """Let a lease run out."""
        self._held.pop(admission.lease, None)

    def tend(self) -> None:
        """Renew the leases that are held here, and forget what is long past."""
        if not self._file.is_open:
            return
        with self._write(may_wait=True) as connection:
            now_s, day = self._clock(), int(self._wall_clock() // DAY_S)
            rows = [
                (now_s + LEASE_S, budget.subject, lease)
                for lease, admission in list(self._held.items())
                for budget in admission.budgets
            ]
            renewal = "UPDATE lease SET expires_at = ? WHERE subject = ? AND id = ?"
            connection.executemany(renewal, rows)
            connection.execute("DELETE FROM lease WHERE expires_at <= ?", (now_s,))
            connection.execute("DELETE FROM bucket WHERE second < ?", (int(now_s) - WINDOW_S,))
            connection.execute("DELETE FROM day WHERE day < ?", (day - KEPT_DAYS,))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()

    @contextmanager
    def _write(self, may_wait: bool) -> Iterator[sqlite3.Connection]:
        """Begin a transaction and end it.

        Raises:
            Busy: others write, and it may not wait.
            Overloaded: others write for too long, or the file cannot be written.
        """
        deadline_s = time.monotonic() + (BUSY_TIMEOUT_S if may_wait else 0)
        if not self._lock.acquire(timeout=BUSY_TIMEOUT_S if may_wait else 0):
            raise _too_busy(may_wait)
        try:
            connection = self._begun(deadline_s, may_wait)
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException as error:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.DatabaseError):
                    self._mend(error)
                    raise Overloaded("the limits begin anew; try again shortly") from None
                raise
        finally:
            self._lock.release()

    def _begun(self, deadline_s: float, may_wait: bool) -> sqlite3.Connection:
        """Return a connection with a transaction; a damaged file is replaced on the way."""
        while True:
            try:
                connection = self._file.connection()
                connection.execute("BEGIN IMMEDIATE")
                return connection
            except sqlite3.DatabaseError as error:
                if _code(error) not in BUSY:
                    self._mend(error)
            except OSError as error:
                raise _unwritable() from error
            if time.monotonic() > deadline_s:
                raise _too_busy(may_wait)
            time.sleep(random.uniform(0.0001, 0.001))  # noqa: S311  # so that two part ways

    def _mend(self, error: sqlite3.DatabaseError) -> None:
        """Put an empty file in the place of a damaged one; raises Overloaded where it is none."""
        if _code(error) not in DAMAGED:
            raise _unwritable() from error
        try:
            self._file.replace()
        except (OSError, sqlite3.Error) as failure:
            raise _unwritable() from failure


def _code(error: sqlite3.DatabaseError) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _too_busy(may_wait: bool) -> Exception:
    return Overloaded("too many ask at once; try again shortly") if may_wait else Busy()


def _unwritable() -> Overloaded:
    return Overloaded("the limits cannot be counted now; try again shortly")
