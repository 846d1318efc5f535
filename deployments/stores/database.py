"""The one SQL database: connections and transactions.

Everything that differs between SQLite and PostgreSQL stands here and in ``sql_errors.py``; no other
module knows which one it talks to.
"""

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Select, create_engine, event, text
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.engine import URL, make_url

from deployments.stores.sql_errors import files_translated, translated

BUSY_TIMEOUT_S = 10.0
"""How long a SQLite writer waits for the one before it."""

SQLITE = sqlite_dialect()

MIGRATION_LOCK = 0x7261677365727665
"""PostgreSQL advisory lock: `ragserve` in ASCII."""


class Database:
    """Transactions on one SQL database; safe to use from many threads."""

    def __init__(self, url: str, pool_size: int = 8) -> None:
        """Prepare the address; the first transaction connects.

        Args:
            url: a SQLAlchemy address, `sqlite:////path` or `postgresql+psycopg://…`.
            pool_size: most connections kept and open at once.

        Raises:
            StoreUnavailable: SQLite's file cannot be opened for writing.
        """
        address = make_url(url)
        self.is_sqlite = address.get_backend_name() == "sqlite"
        if self.is_sqlite:
            with files_translated():
                _create_private_file(_sqlite_path(address))
            connect_args: dict[str, Any] = {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
        else:
            connect_args = {}
        self._engine = create_engine(
            address,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=BUSY_TIMEOUT_S,
            pool_pre_ping=not self.is_sqlite,
            hide_parameters=True,
            connect_args=connect_args,
        )
        self._reads, self._writes = self._engines()
        self._address, self._connect_args = address, connect_args
        self._idle: list[sqlite3.Connection] = []

    def _engines(self) -> tuple[Engine, Engine]:
        if not self.is_sqlite:
            return self._engine.execution_options(isolation_level="REPEATABLE READ"), self._engine
        event.listen(self._engine, "connect", _on_sqlite_connect)
        event.listen(self._engine, "begin", _on_sqlite_begin)
        return self._engine, self._engine.execution_options(sqlite_begin="BEGIN IMMEDIATE")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that sees one state of the database, whatever is committed meanwhile.

        Raises:
            StoreUnavailable: the database did not answer; safe to retry.
        """
        with translated(), self._reads.begin() as connection:
            yield connection

    def rows(self, statement: Select[Any], parameters: Mapping[str, Any]) -> Sequence[Any]:
        """Return the rows of one statement that is asked all the time, at the least cost.

        Args:
            statement: the same object every time; values come as the driver has them.
            parameters: one value per `bindparam`, a list where that is `expanding`.

        Raises:
            StoreUnavailable: the database did not answer; safe to retry.

        Source: a transaction of SQLAlchemy costs 0.4 ms when its code has left the processor's
        cache, which it has between two requests; the driver alone costs 0.08 ms.
        """
        if not self.is_sqlite:
            with self.read() as connection:
                return connection.execute(statement, parameters).all()
        sizes = tuple(len(v) if isinstance(v, list) else None for v in parameters.values())
        sql, names = _driver_sql(statement, tuple(parameters), sizes)
        values = _flat(parameters)
        with translated(), self._driver_connection() as driver:
            return driver.execute(sql, [values[name] for name in names]).fetchall()

    @contextmanager
    def _driver_connection(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection of its own, without a transaction, to one thread."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = sqlite3.connect(_sqlite_path(self._address), **self._connect_args)
            _on_sqlite_connect(connection, None)
        try:
            yield connection
        finally:
            self._idle.append(connection)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that is on the disk when the block has ended, or never happened.

        Raises:
            StoreUnavailable: the database did not answer; nothing of the block was written unless
                the failure hit the commit itself, so repeat it as a whole.
            Conflict: a constraint was violated.
        """
        with translated(), self._writes.begin() as connection:
            yield connection

    @contextmanager
    def migration(self) -> Iterator[Connection]:
        """Open a write transaction that only one process at a time can hold.

        SQLite alters a table by replacing it, so references are not enforced meanwhile.
        """
        engine = self._writes.execution_options(sqlite_foreign_keys="OFF")
        with translated(), engine.begin() as connection:
            if not self.is_sqlite:
                connection.execute(
                    text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK}
                )
            yield connection

    def check(self) -> None:
        """Raise StoreUnavailable unless the database answers."""
        with self.read() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        """Close the idle connections."""
        self._engine.dispose()
        while self._idle:
            self._idle.pop().close()


@lru_cache(maxsize=1024)
def _driver_sql(
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
    compiled = shaped.compile(dialect=SQLITE, compile_kwargs={"render_postcompile": True})
    return str(compiled), list(compiled.positiontup or ())


def _flat(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters with one name per item of a list, as SQLAlchemy names them."""
    flat: dict[str, Any] = {}
    for name, value in parameters.items():
        if isinstance(value, list):
            flat.update((f"{name}_{i}", item) for i, item in enumerate(value, start=1))
        else:
            flat[name] = value
    return flat


def _sqlite_path(address: URL) -> Path:
    if not address.database or address.database == ":memory:":
        raise ValueError("a SQLite address needs a file: replicas share it")
    return Path(address.database)


def _create_private_file(path: Path) -> None:
    """Create the database file for its owner only; SQLite gives its log files the same mode."""
    if not path.parent.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    path.chmod(0o600)


def _on_sqlite_connect(connection: sqlite3.Connection, _record: object) -> None:
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


def _on_sqlite_begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    enforced = options.get("sqlite_foreign_keys", "ON")
    connection.exec_driver_sql(f"PRAGMA foreign_keys={enforced}")  # no effect in a transaction
    connection.exec_driver_sql(options.get("sqlite_begin", "BEGIN"))
