"""The tables of the audit log; those of records are one per day, so that a day goes as a whole.

Days come and go while the service runs, so no migration can know them: tables are made when they
are first needed. `FORMAT` of the chain says how their rows are read.

A record's tenant, key, operation, method and status are a *facet*, which few records of a day have
alone; a row holds its number only. So one index of eight bytes a row serves every combination of
filters, and its count says how many rows one will find.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

from deployments.stores.database import Database

DAY_US = 86_400_000_000

metadata = MetaData()

writers = Table(
    "audit_writers",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("started_us", BigInteger, nullable=False),
    Column("seen_us", BigInteger, nullable=False),
    Column("is_open", Integer, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("time_us", BigInteger, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("seal", LargeBinary(32), nullable=False),
    Column("checked", BigInteger, nullable=False),
)
"""Every chain and its head; `is_open` while its process lives; up to `checked` it is signed."""

intents = Table(
    "audit_intents",
    metadata,
    Column("writer", Integer, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("owner", Integer, nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("record", Text, nullable=False),
    Index("ix_audit_intents_owner", "owner", "request_id"),
)
"""What was begun and has no end yet; of a dead writer's, another one becomes the owner."""

days = Table(
    "audit_days",
    metadata,
    Column("day", String(10), primary_key=True),
    Column("created_us", BigInteger, nullable=False),
)

facets = Table(
    "audit_facets",
    metadata,
    Column("day", String(10), primary_key=True),
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("tenant", String(64), nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("operation", String(64), nullable=False),
    Column("method", String(16), nullable=False),
    Column("status", Integer, nullable=False),
    Column("num_records", BigInteger, nullable=False),
    Index("ix_audit_facets_key", "day", "key_id"),
    Index("ix_audit_facets_tenant", "day", "tenant"),
    sqlite_with_rowid=False,
)

checkpoints = Table(
    "audit_checkpoints",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("time_us", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Column("signature", LargeBinary(64), nullable=False),
)

archives = Table(
    "audit_archives",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("day", String(10), nullable=False),
    Column("body", Text, nullable=False),
    Column("signature", LargeBinary(64), nullable=False),
)
"""Days that left the database: their file, and the heads that their chains had at its end."""


@lru_cache(maxsize=512)
def day_table(day: str) -> Table:
    """Return the table of a day, `2026-11-23`, whether it exists or not."""
    name = f"audit_{day.replace('-', '')}"
    return Table(
        name,
        MetaData(),
        Column("time_us", BigInteger, primary_key=True, autoincrement=False),
        Column("writer", Integer, primary_key=True, autoincrement=False),
        Column("sequence", BigInteger, primary_key=True, autoincrement=False),
        Column("facet", BigInteger, nullable=False),
        Column("request_id", String(64), nullable=False),
        Column("address", String(45), nullable=False),
        Column("latency_us", BigInteger, nullable=False),
        Column("tokens_in", BigInteger, nullable=False),
        Column("tokens_out", BigInteger, nullable=False),
        Column("error", String(64), nullable=False),
        Column("touched", Text, nullable=False),
        Column("hash", LargeBinary(32), nullable=False),
        Index(f"ix_{name}_facet", "facet", "time_us", "writer", "sequence"),
        sqlite_with_rowid=False,
    )


def create_tables(database: Database) -> None:
    """Create what is missing; many processes may call this at once."""
    with database.migration() as connection:
        metadata.create_all(connection)


def create_day(database: Database, day: str, now_us: int) -> None:
    """Create the table of a day unless it is there."""
    with database.migration() as connection:
        found = connection.execute(days.select().where(days.c.day == day)).one_or_none()
        day_table(day).create(connection, checkfirst=True)
        if found is None:
            connection.execute(days.insert().values(day=day, created_us=now_us))


def day_of(time_us: int) -> str:
    """Return the day, in UTC, of a time."""
    return _day(time_us // DAY_US)


@lru_cache(maxsize=512)
def _day(number: int) -> str:
    return datetime.fromtimestamp(number * DAY_US // 1_000_000, UTC).strftime("%Y-%m-%d")


def days_between(known: Iterable[str], since_us: int | None, until_us: int | None) -> list[str]:
    """Return those of the days that overlap a span, the newest first."""
    first = "" if since_us is None else day_of(since_us)
    last = "9999" if until_us is None else day_of(until_us - 1)
    return sorted((day for day in known if first <= day <= last), reverse=True)
