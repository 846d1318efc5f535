"""The one SQL database: connections and transactions.

Everything that differs between SQLite and PostgreSQL stands here, in ``sqlite.py`` and in
``sql_errors.py``; no other module knows which one it talks to.
"""

import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    ExceptionContext,
    Select,
    Table,
    create_engine,
    event,
    text,
)
from sqlalchemy.engine import make_url

from deployments.stores import sqlite
from deployments.stores.commits import Commits
from deployments.stores.sql_errors import files_translated, translated

log = logging.getLogger(__name__)

MIGRATION_LOCK = 0x7261677365727665
"""PostgreSQL advisory lock: `ragserve` in ASCII."""

ERASABLE = "chunks, documents, removed_chunks, tasks, task_events, batch_lines, feedback"
"""The tables of which erasure deletes content."""


class Database:
    """Transactions on one SQL database; safe to use from many threads.

    Of SQLite's, each method raises DatabaseDamaged when acknowledged writes are missing: this is
    found out before anything is answered (``commits.py``).
    """

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
        self._commits: Commits | None = None
        self._is_checked = not self.is_sqlite
        if self.is_sqlite:
            with files_translated():
                sqlite.create_private_file(sqlite.file_of(address))
            self._commits = Commits(sqlite.file_of(address))
            connect_args: dict[str, Any] = dict(sqlite.CONNECT)
            own: dict[str, Any] = {"pool_reset_on_return": None}  # each transaction has ended
        else:
            connect_args, own = {}, {"pool_pre_ping": True}
        self._engine = create_engine(
            address,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=sqlite.BUSY_TIMEOUT_S,
            hide_parameters=True,
            connect_args=connect_args,
            **own,
        )
        self._reads, self._writes = self._engines()
        self._address, self._connect_args = address, connect_args
        self._idle: list[sqlite3.Connection] = []

    def _engines(self) -> tuple[Engine, Engine]:
        if not self.is_sqlite:
            return self._engine.execution_options(isolation_level="REPEATABLE READ"), self._engine
        event.listen(self._engine, "connect", sqlite.prepare)
        event.listen(self._engine, "begin", _on_sqlite_begin)
        event.listen(self._engine, "handle_error", _on_sqlite_error)
        return self._engine, self._engine.execution_options(sqlite_begin="BEGIN IMMEDIATE")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that sees one state of the database, whatever is committed meanwhile.

        Raises:
            StoreUnavailable: the database did not answer; safe to retry.
        """
        self._check_commits()
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
        self._check_commits()
        sizes = tuple(len(v) if isinstance(v, list) else None for v in parameters.values())
        sql, names = sqlite.driver_sql(statement, tuple(parameters), sizes)
        values = sqlite.flat(parameters)
        with translated(), self._driver_connection() as driver:
            return driver.execute(sql, [values[name] for name in names]).fetchall()

    @contextmanager
    def _driver_connection(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection of its own, without a transaction, to one thread."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = sqlite3.connect(sqlite.file_of(self._address), **self._connect_args)
            sqlite.prepare(connection)
        try:
            yield connection
        except BaseException:
            connection.close()  # it may be one that can only read, for good
            raise
        self._idle.append(connection)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that is on the disk when the block has ended, or never happened.

        Raises:
            StoreUnavailable: the database did not answer; nothing of the block was written unless
                the failure hit the commit itself, so repeat it as a whole.
            Conflict: a constraint was violated.
        """
        self._check_commits()
        count = None
        with translated(), self._writes.begin() as connection:
            before = _num_changes(connection)
            yield connection
            if self._commits is not None and _num_changes(connection) > before:
                count = self._commits.raise_count(_driver_of(connection))
        self._note(count)

    @contextmanager
    def migration(self, *, is_replaced: bool = False) -> Iterator[Connection]:
        """Open a write transaction that only one process at a time can hold.

        SQLite alters a table by replacing it, so references are not enforced meanwhile.

        Args:
            is_replaced: the block gives up all that the database holds, or leaves it alone; what is
                missing of it does not matter any more.
        """
        if not is_replaced:
            self._check_commits()
        engine, count = self._writes.execution_options(sqlite_foreign_keys="OFF"), None
        with translated(), engine.begin() as connection:
            if self._commits is None:
                connection.execute(
                    text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK}
                )
            before = _num_changes(connection)
            yield connection
            if self._commits is not None and _num_changes(connection) > before:
                driver = _driver_of(connection)
                count = self._commits.raise_count(driver, is_replaced=is_replaced)
        self._note(count)

    def _note(self, count: int | None) -> None:
        """Note what was committed; where that fails, it is committed all the same."""
        if self._commits is None or count is None:
            return
        try:
            self._commits.note(count)
        except OSError as error:
            log.warning("acknowledged commits cannot be noted: %s", error.strerror)

    def _check_commits(self) -> None:
        """Compare the count with the note, once; the connection opens the log if nobody has."""
        if self._is_checked or self._commits is None:
            return
        with translated(), self._driver_connection() as driver:
            self._commits.check(driver)
        self._is_checked = True

    def vacuum(self) -> None:
        """Leave nothing of deleted rows in the database's files; takes as long as copying them.

        The write-ahead log of PostgreSQL is recycled by its server, which this cannot hasten.

        Raises:
            StoreUnavailable: no room for the copy, or readers that do not end; safe to retry.
        """
        self._check_commits()
        with translated():
            if self.is_sqlite:
                with self._driver_connection() as driver:
                    sqlite.vacuum(driver)
                return
            autocommit = self._engine.execution_options(isolation_level="AUTOCOMMIT")
            with autocommit.connect() as connection:
                connection.execute(text(f"VACUUM (FULL) {ERASABLE}"))

    def check(self) -> None:
        """Raise StoreUnavailable unless the database answers; look for lost commits anew."""
        self._is_checked = self._commits is None
        with self.read() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        """Close the idle connections."""
        self._engine.dispose()
        while self._idle:
            self._idle.pop().close()


def hold_table(connection: Connection, table: Table) -> None:
    """Keep all others from writing a table, and from holding rows of it, until the commit.

    Those who hold rows now are waited for. SQLite's writers are alone anyway.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"LOCK TABLE {table.name} IN EXCLUSIVE MODE"))


def insert_rows(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, which have the same columns; one or more."""
    if connection.dialect.name == "sqlite":
        sqlite.insert_rows(connection, table, rows)
    else:
        connection.execute(table.insert(), rows)


def _on_sqlite_error(context: ExceptionContext) -> None:
    """Let go of a connection that can only read: SQLite opens one when it may not write, for good.

    The folder may take writes again, or has only failed once; then a new connection can write.
    """
    code = getattr(context.original_exception, "sqlite_errorcode", 0)
    context.is_disconnect = context.is_disconnect or code & 0xFF == sqlite3.SQLITE_READONLY


def _driver_of(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


def _num_changes(connection: Connection) -> int:
    """Return how many rows a connection of SQLite's ever changed; a commit without is none."""
    return _driver_of(connection).total_changes if connection.dialect.name == "sqlite" else 0


def _on_sqlite_begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    enforced = options.get("sqlite_foreign_keys", "ON")
    if connection.info.get("foreign_keys", "ON") != enforced:  # `prepare` has enforced them
        connection.exec_driver_sql(f"PRAGMA foreign_keys={enforced}")  # no effect in a transaction
        connection.info["foreign_keys"] = enforced
    connection.exec_driver_sql(options.get("sqlite_begin", "BEGIN"))
