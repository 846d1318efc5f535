"""What one call leaves in the audit log, as it becomes known; the log itself is elsewhere.

The layers that learn something do not know each other, so the entry of the call that is being
answered is found through the context. Names count only once something was found by them: what a
caller makes up may be anything, a prompt or a key put in the wrong field.
"""

import re
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Protocol

from deployments.errors import NotFound, RagError, StoreUnavailable
from deployments.ingress.auth import Key
from deployments.ingress.ended import ended
from deployments.stores.ids import new_id
from deployments.types.audit import (
    INTENT,
    AuditFilter,
    AuditRecord,
    Chained,
    Position,
    Verified,
)

COMMIT_TIMEOUT_S = 10.0
MAX_TOUCHED = 32
PLAIN = re.compile(r"[\x21-\x7e]{1,128}")
HANDLE = "HANDLE"
OK = 200
METHODS = frozenset({HANDLE, "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Audit(Protocol):
    """The log; what each does, `AuditLog` says."""

    @property
    def num_dropped(self) -> int:
        """Return how many records were dropped."""
        ...

    @property
    def is_well(self) -> bool:
        """Return whether records can be written, as far as is known."""
        ...

    def record(self, record: AuditRecord) -> None:
        """Take a record."""
        ...

    def submit(self, record: AuditRecord) -> "Future[None]":
        """Take a record; the future is done when it is on the disk, or fails."""
        ...

    def page(
        self, wanted: AuditFilter, *, limit: int, after: Position | None = None
    ) -> list[Chained]:
        """Return records, the newest first."""
        ...

    def verify_apart(self) -> Verified:
        """Read everything in another process, and say where it is wrong first."""
        ...

    def close(self) -> None:
        """Write what waits, and end."""
        ...

    def pseudonym(self, name: str) -> str:
        """Return what stands for a name that may be a person's."""
        ...


class Entry:
    """One call, from its first byte to its last."""

    def __init__(self, log: Audit, request_id: str, method: str) -> None:
        self._log = log
        self._request_id = request_id
        self._method = method if method in METHODS else "other"
        self._started = time.perf_counter()
        self._operation = self._tenant = self._key_id = self._address = self._error = ""
        self._tokens = [0, 0]
        self._touched: dict[tuple[str, str], None] = {}
        self._is_owed = False
        self._is_recorded = False

    def come_from(self, address: str) -> None:
        """Say where the call comes from."""
        self._address = address

    def belong_to(self, key: Key) -> None:
        """Say whose call it is."""
        self._tenant, self._key_id = key.tenant, key.id

    def be_called(self, operation: str) -> None:
        """Say which operation it is."""
        self._operation = operation

    def count_tokens(self, num_in: int, num_out: int) -> None:
        """Add tokens."""
        self._tokens[0] += num_in
        self._tokens[1] += num_out

    def touch(self, kind: str, name: str) -> None:
        """Say what the call reached, by an id; up to `MAX_TOUCHED` are kept."""
        if name and len(self._touched) < MAX_TOUCHED:
            plain = name if PLAIN.fullmatch(name) else self._log.pseudonym(name)
            self._touched[kind, plain] = None

    def touch_person(self, kind: str, name: str) -> None:
        """Say what the call reached, by a name that may be a person's: a keyed hash stays."""
        self.touch(kind, self._log.pseudonym(name))

    def fail(self, code: str) -> None:
        """Say how it failed."""
        self._error = code

    async def begin(self) -> None:
        """Write down what is about to be done.

        Raises:
            StoreUnavailable: it cannot be written down, so it must not be done.
        """
        await self._commit(self._record(INTENT))
        self._is_owed = True

    def owe(self) -> None:
        """Have the end be on the disk before anybody is told; nothing says that it has begun.

        Raises:
            StoreUnavailable: it can hardly be written down, so it must not be done.
        """
        if not self._log.is_well:
            raise StoreUnavailable("the audit log cannot be written")
        self._is_owed = True

    async def settle(self, status: int) -> None:
        """Write down how what was begun, or owed, has ended, before anybody is told.

        Raises:
            StoreUnavailable: it is not on the disk yet, so nobody may be told of a success.
        """
        if self._is_owed and not self._is_recorded:
            self._is_recorded = True
            await self._commit(self._record(status))

    def end(self, status: int) -> None:
        """Write down how the call has ended, unless it is written."""
        if not self._is_recorded:
            self._is_recorded = True
            self._log.record(self._record(status))

    async def _commit(self, record: AuditRecord) -> None:
        try:
            await ended(self._log.submit(record), COMMIT_TIMEOUT_S)
        except TimeoutError:
            raise StoreUnavailable("the audit log did not answer") from None

    def _record(self, status: int) -> AuditRecord:
        return AuditRecord(
            request_id=self._request_id,
            status=status,
            operation=self._operation,
            method=self._method,
            tenant=self._tenant,
            key_id=self._key_id,
            address=self._address,
            latency_us=round((time.perf_counter() - self._started) * 1_000_000),
            tokens_in=self._tokens[0],
            tokens_out=self._tokens[1],
            error="" if status == INTENT else self._error,
            touched=tuple(self._touched),
        )


CURRENT: ContextVar[Entry | None] = ContextVar("entry", default=None)


@asynccontextmanager
async def handle_call(log: Audit, operation: str, *, is_change: bool) -> AsyncIterator[None]:
    """Write down a call that comes over a handle: from within the cluster, without a key.

    Raises:
        StoreUnavailable: it changes something, and cannot be written down.
    """
    entry = Entry(log, new_id("req"), HANDLE)
    entry.be_called(operation)
    CURRENT.set(entry)
    status = RagError.status
    try:
        if is_change:
            await entry.begin()
        yield
        await entry.settle(OK)
        status = OK
    except RagError as exc:
        entry.fail(exc.code)
        status = exc.status
        raise
    finally:
        entry.end(status)


def count_tokens(num_in: int, num_out: int) -> None:
    """Add tokens to the call that is being answered."""
    if (entry := CURRENT.get()) is not None:
        entry.count_tokens(num_in, num_out)


def touch(kind: str, name: str) -> None:
    """Say what the call that is being answered has reached."""
    if (entry := CURRENT.get()) is not None:
        entry.touch(kind, name)


def touch_persons(kind: str, names: Iterable[str]) -> None:
    """Say the same by names that may be persons'."""
    if (entry := CURRENT.get()) is not None:
        for _, name in zip(range(MAX_TOUCHED), names, strict=False):
            entry.touch_person(kind, name)


def fail(error: RagError) -> None:
    """Say how the call that is being answered failed."""
    if (entry := CURRENT.get()) is not None:
        entry.fail(error.code)


@contextmanager
def touching(kind: str, name: str) -> Iterator[None]:
    """Say what is reached in the block, unless nothing is found by the name."""
    try:
        yield
    except NotFound:
        raise
    except BaseException:
        touch(kind, name)
        raise
    touch(kind, name)
