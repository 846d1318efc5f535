"""Writers: each process's life has a chain of its own, so that none waits for another's."""

import orjson
from sqlalchemy import func, select

from deployments.errors import Conflict
from deployments.stores.audit.batches import chained, commit
from deployments.stores.audit.chain import Head, beginning, seal
from deployments.stores.audit.tables import intents, writers
from deployments.stores.database import Database
from deployments.types.audit import AuditRecord

DEAD_AFTER_US = 60_000_000
"""Since a writer was seen; it shows itself every ten seconds."""

INTERRUPTED = "interrupted"
"""The error of what began and whose process died; nobody knows how far it got."""

INHERITED_ROWS = 500
OPEN_TRIES = 20


def open_writer(database: Database, key: bytes, now_us: int) -> Head:
    """Begin a new chain; return its head.

    Raises:
        StoreUnavailable: the database did not answer; safe to retry.
    """
    for _ in range(OPEN_TRIES - 1):
        try:
            return _insert(database, key, now_us)
        except Conflict:  # another process took the number
            continue
    return _insert(database, key, now_us)


def _insert(database: Database, key: bytes, now_us: int) -> Head:
    with database.write() as connection:
        last = connection.scalar(select(func.max(writers.c.id))) or 0
        head = beginning(last + 1)
        connection.execute(
            writers.insert().values(
                id=head.writer,
                started_us=now_us,
                seen_us=now_us,
                is_open=1,
                sequence=0,
                time_us=0,
                hash=head.hash,
                seal=seal(key, head),
                checked=0,
            )
        )
    return head


def show(database: Database, writer: int, now_us: int, *, is_open: bool = True) -> None:
    """Say that a writer lives, or that it has ended."""
    values = {"seen_us": now_us, "is_open": int(is_open)}
    with database.write() as connection:
        connection.execute(writers.update().where(writers.c.id == writer).values(values))


def claim(database: Database, writer: int, now_us: int) -> bool:
    """Become the owner of what dead writers have begun; return whether a writer has such.

    Of two processes that do this at once, each thing has one owner; where that one dies as well, a
    third will be.
    """
    gone = (writers.c.is_open == 0) | (writers.c.seen_us < now_us - DEAD_AFTER_US)
    dead = select(writers.c.id).where(gone, writers.c.id != writer)
    inherited = select(intents.c.owner).where(intents.c.owner == writer, intents.c.writer != writer)
    with database.read() as connection:
        is_any = connection.execute(
            select(intents.c.owner).where(intents.c.owner.in_(dead)).limit(1)
        )
        if is_any.first() is None:
            return connection.execute(inherited.limit(1)).first() is not None
    with database.write() as connection:
        taken = intents.update().where(intents.c.owner.in_(dead)).values(owner=writer)
        connection.execute(taken)
    return True


def close_inherited(
    database: Database, key: bytes, head: Head, now_us: int, days: set[str]
) -> Head:
    """End, in our own chain, what others began and we own; return our head after it."""
    table, ours = intents, head.writer
    wanted = select(table).where(table.c.owner == ours, table.c.writer != ours)
    with database.read() as connection:
        rows = connection.execute(wanted.limit(INHERITED_ROWS)).all()
    if not rows:
        return head
    time_us = max(now_us, head.time_us)
    ends = [(time_us, _interrupted(row.record)) for row in rows]
    batch = chained(head, ends, {row.request_id: ours for row in rows})
    commit(database, key, batch, days, now_us)
    return batch.after


def _interrupted(intent: str) -> AuditRecord:
    values = orjson.loads(intent)
    touched = tuple((kind, name) for kind, name in values["touched"])
    return AuditRecord(**{**values, "touched": touched, "status": 500, "error": INTERRUPTED})
