"""SQLite's own: its file, its connections, its driver without a layer above, its vacuum.

Only `Database` uses this; what it promises its callers stands there.
"""

import os
import sqlite3
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, Table
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.engine import URL

from deployments.errors import StoreUnavailable

BUSY_TIMEOUT_S = 10.0
"""How long a writer waits for the one before it."""

CHECKPOINT_TIMEOUT_S = 30.0
"""How long `vacuum` waits for readers of the past."""

CONNECT = {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
DIALECT = sqlite_dialect()
ROWS_AT_ONCE = 64
"""Rows of one statement at most; SQLite takes 32,766 values."""


@lru_cache(maxsize=1024)
def driver_sql(
    statement: Select[Any], names: tuple[str, ...], sizes: tuple[int | None, ...]
) -> tuple[str, list[str]]:
    """Return a statement as the driver takes it, and the names of its parameters in order.

    Args:
        statement: with a `bindparam` of each name.
        names: of the parameters.
        sizes: the length of each parameter, None unless it is a list.
    """
    pairs = zip(names, sizes, strict=True)
    shaped = statement.params({n: 0 if size is None else [0] * size for n, size in pairs})
    compiled = shaped.compile(dialect=DIALECT, compile_kwargs={"render_postcompile": True})
    return str(compiled), list(compiled.positiontup or ())


def flat(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters with one name per item of a list, as SQLAlchemy names them."""
    flat: dict[str, Any] = {}
    for name, value in parameters.items():
        if isinstance(value, list):
            flat.update((f"{name}_{i}", item) for i, item in enumerate(value, start=1))
        else:
            flat[name] = value
    return flat


def insert_rows(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, which have the same columns, many by each statement.

    The driver lets go of the interpreter's lock for each row of an `executemany`, and has to get it
    back from threads that have work.
    """
    names = tuple(rows[0])
    start = 0
    while start < len(rows):
        num = min(ROWS_AT_ONCE, 1 << (len(rows) - start).bit_length() - 1)
        sql, columns = _insert_sql(table, names, num)
        values = [
            row[name] if process is None else process(row[name])
            for row in rows[start : start + num]
            for name, process in columns
        ]
        connection.exec_driver_sql(sql, tuple(values))
        start += num


@lru_cache(maxsize=1024)
def _insert_sql(
    table: Table, names: tuple[str, ...], num_rows: int
) -> tuple[str, list[tuple[str, Any]]]:
    """Return the statement for so many rows, and of each value of a row the column and its form.

    Numbers are powers of two, so that SQLite knows a statement again.
    """
    compiled = table.insert().compile(dialect=DIALECT, column_keys=list(names))
    order = list(compiled.positiontup or ())
    types = [table.c[name].type.dialect_impl(DIALECT).bind_processor(DIALECT) for name in order]
    row = f"({', '.join('?' * len(order))})"
    return ", ".join([str(compiled), *[row] * (num_rows - 1)]), list(zip(order, types, strict=True))


def file_of(address: URL) -> Path:
    """Return the database file of an address; raises ValueError when it names none."""
    if not address.database or address.database == ":memory:":
        raise ValueError("a SQLite address needs a file: replicas share it")
    return Path(address.database)


def create_private_file(path: Path) -> None:
    """Create the database file for its owner only; SQLite gives its log files the same mode."""
    if not path.parent.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    path.chmod(0o600)


def prepare(connection: sqlite3.Connection, _record: object = None) -> None:
    """Set what every connection needs: a commit that survives power loss, and real deletion."""
    connection.isolation_level = None  # transactions are begun by _on_sqlite_begin, not the driver
    _enable_wal(connection)
    for pragma in (
        "synchronous=FULL",  # a commit returns after fsync of the log
        "foreign_keys=ON",
        "secure_delete=ON",
        "temp_store=MEMORY",
        "trusted_schema=OFF",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _enable_wal(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log; processes starting at once collide without a busy wait."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not is_busy or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def vacuum(connection: sqlite3.Connection) -> None:
    """Rebuild the file and empty the log.

    Deleted content is overwritten anyway (`secure_delete`), but rows also move between pages, and
    the log keeps pages of the past.

    Raises:
        StoreUnavailable: readers of the past do not end; safe to retry.
        sqlite3.OperationalError: there is no room for the copy, or the file cannot be written.
    """
    connection.execute("PRAGMA temp_store=FILE")  # the copy may be larger than memory
    try:
        connection.execute("VACUUM")
    finally:
        connection.execute("PRAGMA temp_store=MEMORY")
    deadline = time.monotonic() + CHECKPOINT_TIMEOUT_S
    while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        if time.monotonic() > deadline:
            raise StoreUnavailable("readers keep the database's log from being emptied")
        time.sleep(0.05)
