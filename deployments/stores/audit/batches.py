"""One group commit: some records, their place in the chain, and one transaction for them all."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson
from sqlalchemy import Connection, bindparam, select

from deployments.errors import Conflict, DatabaseDamaged
from deployments.stores.audit import facets
from deployments.stores.audit.chain import Head, link, seal, touched_json
from deployments.stores.audit.facets import Facet, facet_of, number_of
from deployments.stores.audit.tables import create_day, day_of, day_table, intents, writers
from deployments.stores.database import Database, insert_rows
from deployments.types.audit import INTENT, AuditRecord

MOVE = (
    writers.update()
    .where(
        writers.c.id == bindparam("writer"),
        writers.c.sequence == bindparam("from_sequence"),
        writers.c.hash == bindparam("from_hash"),
    )
    .values(is_open=1, **{name: bindparam(name) for name in ("sequence", "time_us", "hash")})
    .values(seal=bindparam("seal"), seen_us=bindparam("seen_us"))
)
STRIKE = intents.delete().where(
    intents.c.owner == bindparam("by"), intents.c.request_id == bindparam("request")
)

COMMIT_TRIES = 20

Timed = tuple[int, AuditRecord]
"""A record and its time in microseconds; times of a chain never fall."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Records that are chained already, so that the same rows are written again after a failure."""

    before: Head
    after: Head
    rows: dict[str, list[dict[str, Any]]]
    counts: dict[str, Counter[Facet]]
    begun: dict[str, dict[str, Any]]
    ended: list[tuple[int, str]]
    num_records: int


def chained(head: Head, records: Sequence[Timed], begun: Mapping[str, int]) -> Batch:
    """Return a batch of records that follow a head.

    Args:
        head: of the writer's chain.
        records: in order.
        begun: for requests whose intents are written, who owns these: their ends strike them out.
    """
    batch = Batch(head, head, {}, {}, {}, [], len(records))
    for time_us, record in records:
        head = link(head, time_us, record)
        day = day_of(time_us)
        if day not in batch.rows:
            batch.rows[day], batch.counts[day] = [], Counter()
        batch.rows[day].append(_row(head, record))
        batch.counts[day][facet_of(record)] += 1
        if record.status == INTENT:
            batch.begun[record.request_id] = _intent(head, record)
        elif batch.begun.pop(record.request_id, None) is None and record.request_id in begun:
            batch.ended.append((begun[record.request_id], record.request_id))
    return replace(batch, after=head)


def commit(database: Database, key: bytes, batch: Batch, known_days: set[str], now_us: int) -> None:
    """Write a batch, unless an earlier attempt did: then that counts.

    Raises:
        StoreUnavailable: it may not be written; try again with the same batch.
        DatabaseDamaged: the chain's head in the database is not the one that was written there.
    """
    for day in batch.rows.keys() - known_days:
        create_day(database, day, now_us)
        known_days.add(day)
    for _ in range(COMMIT_TRIES - 1):
        try:
            return _commit(database, key, batch, now_us)
        except Conflict:  # another writer was the first to have a facet, at the same moment
            continue
    return _commit(database, key, batch, now_us)


def _commit(database: Database, key: bytes, batch: Batch, now_us: int) -> None:
    with database.write() as connection:
        if not _advance(connection, key, batch, now_us):
            return
        for day, rows in sorted(batch.rows.items()):
            insert_rows(connection, day_table(day), rows)
            facets.count(connection, day, batch.counts[day])
        _note_intents(connection, batch)


def _advance(connection: Connection, key: bytes, batch: Batch, now_us: int) -> bool:
    """Move the chain's head; return False when the batch is there already."""
    before, after = batch.before, batch.after
    moved = connection.execute(
        MOVE,
        {
            "writer": before.writer,
            "from_sequence": before.sequence,
            "from_hash": before.hash,
            "sequence": after.sequence,
            "time_us": after.time_us,
            "hash": after.hash,
            "seal": seal(key, after),
            "seen_us": now_us,
        },
    )
    if moved.rowcount == 1:
        return True
    head = select(writers.c.sequence, writers.c.hash).where(writers.c.id == before.writer)
    found = connection.execute(head).one_or_none()
    if found is not None and (found.sequence, found.hash) == (after.sequence, after.hash):
        return False
    raise DatabaseDamaged("the audit log is not what this process wrote to it")


def _note_intents(connection: Connection, batch: Batch) -> None:
    if batch.begun:
        connection.execute(intents.insert(), [*batch.begun.values()])
    for owner, request_id in batch.ended:
        connection.execute(STRIKE, {"by": owner, "request": request_id})


def _row(head: Head, record: AuditRecord) -> dict[str, Any]:
    return {
        "time_us": head.time_us,
        "writer": head.writer,
        "sequence": head.sequence,
        "facet": number_of(facet_of(record)),
        "request_id": record.request_id,
        "address": record.address,
        "latency_us": record.latency_us,
        "tokens_in": record.tokens_in,
        "tokens_out": record.tokens_out,
        "error": record.error,
        "touched": touched_json(record.touched),
        "hash": head.hash,
    }


def _intent(head: Head, record: AuditRecord) -> dict[str, Any]:
    written = orjson.dumps(asdict(record)).decode()
    return {
        "writer": head.writer,
        "sequence": head.sequence,
        "owner": head.writer,
        "request_id": record.request_id,
        "record": written,
    }
