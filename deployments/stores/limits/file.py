"""The SQLite file that the processes of one host count in: opened, replaced when it is damaged.

What it holds is worth a minute, so it is not flushed to the disk: a power loss forgets it.
"""

import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deployments.stores.sqlite import create_private_file

SCHEMA = """
CREATE TABLE IF NOT EXISTS bucket (
    subject TEXT, second INTEGER, requests INTEGER NOT NULL, tokens INTEGER NOT NULL,
    PRIMARY KEY (subject, second)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS day (
    subject TEXT, day INTEGER, tokens INTEGER NOT NULL, PRIMARY KEY (subject, day)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lease (
    subject TEXT, id TEXT, expires_at REAL NOT NULL, PRIMARY KEY (subject, id)
) WITHOUT ROWID;
"""
OPEN_TIMEOUT_S = 10.0

log = logging.getLogger(__name__)


class LimitsFile:
    """Connections to one file; not safe to use from several threads at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._inode = 0

    @property
    def is_open(self) -> bool:
        """Return whether anything has been counted here since it was closed."""
        return self._connection is not None

    def connection(self) -> sqlite3.Connection:
        """Return a connection to the file that is there now; others may have replaced it."""
        try:
            inode = os.stat(self._path).st_ino  # noqa: PTH116  # asked at every request
        except FileNotFoundError:
            inode = 0
        if self._connection is None or inode != self._inode:
            with self._locked():
                self._open()
        assert self._connection is not None
        return self._connection

    def replace(self) -> None:
        """Put an empty file in the place of the one that is open, unless another has by now."""
        log.error("the file of the limits is damaged; they begin anew")
        with self._locked():
            if self._path.exists() and self._path.stat().st_ino == self._inode:
                self._remove()
            self._open()

    def close(self) -> None:
        """Close the connection; the next call of `connection` opens one again."""
        if self._connection is not None:
            with suppress(sqlite3.Error):  # a damaged file may not let itself be closed
                self._connection.close()
            self._connection = None

    def _open(self) -> None:
        self.close()
        create_private_file(self._path)
        try:
            self._connection = self._connected()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            self._remove()
            create_private_file(self._path)
            self._connection = self._connected()
        self._inode = self._path.stat().st_ino

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def _connected(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=OPEN_TIMEOUT_S, check_same_thread=False, isolation_level=None
        )
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=OFF")
            connection.executescript(SCHEMA)
            connection.execute("PRAGMA busy_timeout=0")  # who waits, waits outside
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(
            self._path.with_name(f"{self._path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)
