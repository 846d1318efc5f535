"""The writer: one thread that commits what a process has to say, in groups.

What nobody waits for is committed within half a second; what changes state is committed at once,
with all that has come meanwhile, and whoever waits is told when it is on the disk. A failure loses
nothing: the same batch is written again. When more has gathered than memory may hold, records are
dropped and the chain says how many, as soon as it can say anything.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from deployments.errors import DatabaseDamaged, RagError, StoreUnavailable
from deployments.stores.audit.batches import Batch, Timed, chained, commit
from deployments.stores.audit.chain import Head
from deployments.stores.audit.writers import open_writer, show
from deployments.stores.database import Database
from deployments.stores.grouping import yield_to_others
from deployments.types.audit import INTENT, AuditRecord

log = logging.getLogger(__name__)

MAX_AGE_S = 0.5
"""How long a record waits for others, where nobody waits for it."""

MAX_WAITING = 50_000
MAX_BATCH = 2_000
MAX_FALL_US = 1_000_000
"""A clock that falls by more than this begins a new chain; less is bridged."""

RETRY_S = 1.0
GAP = "auditGap"
"""The operation of a record that says how many others were dropped."""

Clock = Callable[[], int]
Done = Future[None]


def now_us() -> int:
    """Return the time in microseconds."""
    return time.time_ns() // 1000


class Writer:
    """Takes records from any thread; `start` has to be called first."""

    def __init__(self, database: Database, key: bytes, clock: Clock = now_us) -> None:
        """Take the key of the seals and where the tables are."""
        self._database = database
        self._key = key
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Timed, Done | None]] = deque()
        self._is_urgent = False
        self._is_closed = False
        self._is_well = True
        self._last_us = 0
        self._num_dropped = 0
        self._gap = 0
        self._head: Head | None = None
        self._unsure: Batch | None = None
        self._begun: dict[str, int] = {}
        self._days: set[str] = set()
        self._is_writing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)

    @property
    def num_dropped(self) -> int:
        """Return how many records were dropped since the process began."""
        return self._num_dropped

    @property
    def is_well(self) -> bool:
        """Return whether the last commit succeeded, as far as is known."""
        return self._is_well and not self._is_closed and len(self._waiting) < MAX_WAITING

    def start(self) -> None:
        """Begin to commit."""
        self._thread.start()

    def record(self, record: AuditRecord) -> None:
        """Take a record that nobody waits for."""
        with self._changed:
            if self._is_full():
                return
            self._waiting.append(((self._time(), record), None))
            if len(self._waiting) == 1:
                self._changed.notify()

    def submit(self, record: AuditRecord) -> Done:
        """Take a record, and return what is done when it is on the disk.

        The future fails with StoreUnavailable when it is not there yet; it may come later.
        """
        done: Done = Future()
        done.set_running_or_notify_cancel()  # whoever waits may leave; the record is written
        with self._changed:
            if self._is_full():
                done.set_exception(StoreUnavailable("the audit log takes no records"))
                return done
            self._waiting.append(((self._time(), record), done))
            self._is_urgent = True
            self._changed.notify()
        return done

    def close(self, timeout_s: float = 10.0) -> None:
        """Commit what waits, and end."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        if self._head is not None and not self._thread.is_alive():
            try:
                show(self._database, self._head.writer, self._clock(), is_open=False)
            except RagError as error:
                log.warning("the end of the audit log's writer is not noted: %s", error.message)

    def open(self) -> None:
        """Begin the chain, where no record has; raises StoreUnavailable."""
        with self._is_writing:
            if self._head is None:
                self._head = open_writer(self._database, self._key, self._clock())

    def extend(self, extend: Callable[[Head, set[str]], Head]) -> None:
        """Have the chain extended by another hand, with no commit meanwhile.

        Raises:
            StoreUnavailable: there is no chain yet, or a commit is unsure.
        """
        with self._is_writing:
            if self._head is None or self._unsure is not None:
                raise StoreUnavailable("the audit log is not being written now")
            self._head = extend(self._head, self._days)

    @property
    def writer(self) -> int | None:
        """Return the number of the chain; None where none is begun."""
        return None if self._head is None else self._head.writer

    def _is_full(self) -> bool:
        """Return whether a record has to be dropped, and count it."""
        is_full = self._is_closed or len(self._waiting) >= MAX_WAITING
        self._num_dropped += is_full
        self._gap += is_full
        return is_full

    def _time(self) -> int:
        """Return the time of the next record: it falls only where the clock fell a lot."""
        now = self._clock()
        if now > self._last_us or now < self._last_us - MAX_FALL_US:
            self._last_us = now
        return self._last_us

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed or self._gap)
                if not self._is_urgent and not self._is_closed:
                    self._changed.wait_for(lambda: self._is_urgent or self._is_closed, MAX_AGE_S)
                if self._is_closed and not self._waiting:
                    return
                self._is_urgent = False
            yield_to_others()
            with self._is_writing:
                self._is_well = self._write_all()
            if not self._is_well:
                if self._is_closed:
                    return
                self._rest()

    def _rest(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._is_urgent, RETRY_S)

    def _write_all(self) -> bool:
        """Commit all that waits; return False when that failed, and whoever waits knows."""
        try:
            while self._waiting or self._gap:
                self._write_some()
        except DatabaseDamaged as error:  # the chain is not ours any more: begin another
            log.error("the audit log: %s", error.message)
            self._head = self._unsure = None
            self._fail()
            return False
        except Exception as error:  # whatever it is, the thread goes on: somebody waits for it
            reason = error.message if isinstance(error, RagError) else type(error).__qualname__
            log.warning("the audit log cannot be written: %s", reason)
            self._days.clear()  # one may have gone
            self._fail()
            return False
        return True

    def _write_some(self) -> None:
        records = self._next()
        if self._head is None or (records and records[0][0] < self._head.time_us):
            self._head = open_writer(self._database, self._key, self._clock())
            self._unsure = None
            self._days.clear()  # where the clock fell, one may have gone
        batch = self._unsure or chained(self._head, records, self._begun)
        self._unsure = batch
        commit(self._database, self._key, batch, self._days, self._clock())
        self._head, self._unsure = batch.after, None
        self._done(batch)

    def _next(self) -> list[Timed]:
        """Return the records of the next batch, which stay in the queue; a clock's fall ends it."""
        with self._changed:
            if self._unsure is not None:
                return []
            if self._gap:
                self._note_gap()
            records: list[Timed] = []
            for timed, _ in self._waiting:
                is_fall = bool(records) and timed[0] < records[-1][0]
                if is_fall or len(records) == MAX_BATCH:
                    break
                records.append(timed)
        return records

    def _note_gap(self) -> None:
        gap = AuditRecord("", 500, GAP, error="dropped", touched=(("records", str(self._gap)),))
        self._waiting.append(((self._time(), gap), None))
        self._gap = 0

    def _done(self, batch: Batch) -> None:
        with self._changed:
            taken = [self._waiting.popleft() for _ in range(batch.num_records)]
        for (_, record), done in taken:
            if record.status == INTENT:
                self._begun[record.request_id] = batch.after.writer
            else:
                self._begun.pop(record.request_id, None)
            if done is not None and not done.done():
                done.set_result(None)

    def _fail(self) -> None:
        error = StoreUnavailable("the audit log cannot be written")
        with self._changed:
            waiting = [done for _, done in self._waiting if done is not None]
        for done in waiting:
            if not done.done():
                done.set_exception(error)
