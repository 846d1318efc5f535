"""Reading the log: pages of records, the newest first, day by day.

The facets of a day say how many of its records match. Few are found by the index and sorted; many
lie so close together that reading back from the newest soon fills a page.
"""

from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, and_, func, select, tuple_
from sqlalchemy.sql.selectable import ScalarSelect

from deployments.stores.audit.facets import known
from deployments.stores.audit.rows import columns_of, position_of, record_of
from deployments.stores.audit.tables import day_of, day_table, days, days_between, facets
from deployments.stores.database import Database
from deployments.types.audit import INTENT, AuditFilter, Chained, Position

MAX_SORTED = 30_000
"""Matches of a day that are sorted; more lie within some 30,000 records for a page of 100, where a
day has ten millions."""


def page(
    database: Database, wanted: AuditFilter, *, limit: int, after: Position | None = None
) -> list[Chained]:
    """Return up to `limit` records, the newest first.

    Without a status, intents are left out: each has its end as a record of its own.

    Args:
        database: of the log.
        wanted: which ones.
        limit: at least 1.
        after: the last one that was seen; what follows is older.
    """
    until = wanted.until_us
    if after is not None:
        until = after.time_us + 1 if until is None else min(until, after.time_us + 1)
    found: list[Chained] = []
    with database.read() as connection:
        stored = connection.scalars(select(days.c.day)).all()
        for day in days_between(stored, wanted.since_us, until):
            found += _of_day(connection, day, wanted, limit - len(found), after)
            if len(found) >= limit:
                break
    return found


def _of_day(
    connection: Connection, day: str, wanted: AuditFilter, limit: int, after: Position | None
) -> list[Chained]:
    conditions = _conditions(day, wanted)
    matching = select(func.sum(facets.c.num_records)).where(*conditions)
    num_matching = connection.scalar(matching)
    if not num_matching:
        return []
    numbers = select(facets.c.id).where(*conditions).scalar_subquery()
    table = day_table(day)
    places = _places(table, wanted, after, day)
    if num_matching <= MAX_SORTED:
        statement = _by_index(table, numbers, places, limit)
    else:
        statement = _by_time(table, numbers, places, limit)
    rows = connection.execute(statement).all()
    who = known(connection, day, {row[3] for row in rows})
    return [Chained(position_of(row), record_of(row, who[row[3]])) for row in rows if row[3] in who]


def _conditions(day: str, wanted: AuditFilter) -> list[ColumnElement[bool]]:
    table = facets
    conditions: list[ColumnElement[bool]] = [table.c.day == day]
    for name in ("tenant", "key_id", "operation", "status"):
        value = getattr(wanted, name)
        if value is not None:
            conditions.append(table.c[name] == value)
    if wanted.status_class is not None:
        lowest = wanted.status_class * 100
        conditions.append(and_(table.c.status >= lowest, table.c.status < lowest + 100))
    elif wanted.status is None:
        conditions.append(table.c.status != INTENT)
    return conditions


def _places(
    table: Table, wanted: AuditFilter, after: Position | None, day: str
) -> list[ColumnElement[bool]]:
    """Return the bounds in time; those that the whole day keeps are left out."""
    places: list[ColumnElement[bool]] = []
    if wanted.since_us is not None and day_of(wanted.since_us) == day:
        places.append(table.c.time_us >= wanted.since_us)
    if wanted.until_us is not None and day_of(wanted.until_us) == day:
        places.append(table.c.time_us < wanted.until_us)
    if after is not None and day_of(after.time_us) == day:
        key = tuple_(table.c.time_us, table.c.writer, table.c.sequence)
        places.append(table.c.time_us <= after.time_us)
        places.append(key < tuple_(after.time_us, after.writer, after.sequence))
    return places


def _by_time(
    table: Table, numbers: ScalarSelect[Any], places: list[ColumnElement[bool]], limit: int
) -> Select[Any]:
    """Return what reads back from the newest; the `+ 0` keeps the other index out of it."""
    matches = (table.c.facet + 0).in_(numbers)
    newest = (table.c.time_us.desc(), table.c.writer.desc(), table.c.sequence.desc())
    return select(*columns_of(table)).where(matches, *places).order_by(*newest).limit(limit)


def _by_index(
    table: Table, numbers: ScalarSelect[Any], places: list[ColumnElement[bool]], limit: int
) -> Select[Any]:
    """Return what sorts the index's entries of the facets, and reads a page of rows."""
    key = (table.c.time_us, table.c.writer, table.c.sequence)
    newest = ((table.c.time_us + 0).desc(), table.c.writer.desc(), table.c.sequence.desc())
    chosen = (
        select(*key)
        .where(table.c.facet.in_(numbers), *places)
        .order_by(*newest)
        .limit(limit)
        .subquery()
    )
    same = and_(*(table.c[column.name] == chosen.c[column.name] for column in key))
    ordered = (chosen.c.time_us.desc(), chosen.c.writer.desc(), chosen.c.sequence.desc())
    return select(*columns_of(table)).select_from(chosen).join(table, same).order_by(*ordered)
