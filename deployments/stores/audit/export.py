"""A span of the log as one Parquet file, for whoever keeps or studies it elsewhere."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from deployments.stores.audit import parquet
from deployments.stores.audit.facets import Facet
from deployments.stores.audit.tables import days, days_between
from deployments.stores.audit.verify import rows_of
from deployments.stores.database import Database
from deployments.types.audit import AuditFilter


def export(database: Database, path: Path, wanted: AuditFilter) -> int:
    """Write the records between two times, intents as well; return how many.

    Raises:
        OSError: the file cannot be written.
    """
    with database.read() as connection:
        span = _Span(connection, wanted)
        parquet.write_file(path, parquet.pieces(span, {}))
    return span.num_rows


class _Span:
    """The rows between two times, the oldest first."""

    def __init__(self, connection: Connection, wanted: AuditFilter) -> None:
        self._connection = connection
        self._wanted = wanted
        self.num_rows = 0

    def __iter__(self) -> Iterator[tuple[Any, dict[int, Facet]]]:
        since, until = self._wanted.since_us, self._wanted.until_us
        stored = self._connection.scalars(select(days.c.day)).all()
        for day in reversed(days_between(stored, since, until)):
            with rows_of(self._connection, day) as rows:
                for row, known in rows:
                    if (since is None or row[0] >= since) and (until is None or row[0] < until):
                        self.num_rows += 1
                        yield row, known
