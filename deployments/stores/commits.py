"""The count of SQLite's commits, and a note beside the database of how many were acknowledged.

SQLite takes a damaged write-ahead log for one that a crash left unfinished: it drops the first
damaged frame and all that follow, so an older state shows without a word. Each transaction
therefore raises a count in the database, and the note says how far it had come when callers were
told. A database that counts fewer has lost something. The count is `user_version`, a field of the
database's header: it needs no table, is part of the transaction, and outlives a vacuum.

The note is written after the commit and not synced. A killed process leaves it in the page cache;
after a power loss it may be missing, torn or older, and then claims less, never too much.
"""

import fcntl
import os
import sqlite3
import zlib
from pathlib import Path

from deployments.errors import DatabaseDamaged
from deployments.stores.sql_errors import files_translated

MODULUS = 2**31
"""`user_version` has 31 bits for positive numbers; the count begins again after them."""

NUM_BYTES = 12
"""A count and its CRC-32."""


class Commits:
    """The count of one database file; safe to use from many threads and processes."""

    def __init__(self, file: Path) -> None:
        """Take note in `<file>-acknowledged`."""
        self._note = file.with_name(file.name + "-acknowledged")

    def check(self, connection: sqlite3.Connection) -> None:
        """Compare, on a connection without a transaction.

        Raises:
            DatabaseDamaged: acknowledged commits are missing.
            StoreUnavailable: the note cannot be read.
        """
        noted = self.noted()  # first: what is committed meanwhile only adds to the count
        if noted is not None and _is_before(count_of(connection), noted):
            raise DatabaseDamaged(
                "acknowledged writes are missing from the database: its files were damaged, or "
                "replaced by older ones. Restore a backup; or, to go on without these writes, "
                f"remove the file {self._note.name} beside the database"
            )

    def raise_count(self, connection: sqlite3.Connection, *, is_replaced: bool = False) -> int:
        """Count the transaction that the connection is in; return the count.

        `is_replaced`: what the database held is given up, also what was noted of it.
        """
        count = count_of(connection)
        noted = self.noted() if is_replaced else None
        if noted is not None and _is_before(count, noted):
            count = noted
        count = (count + 1) % MODULUS
        connection.execute(f"PRAGMA user_version={count}")
        return count

    def noted(self) -> int | None:
        """Return the count that was noted; None where there is no sound note."""
        with files_translated():
            try:
                return _parsed(self._note.read_bytes())
            except FileNotFoundError:
                return None

    def note(self, count: int) -> None:
        """Note the count of a transaction that is committed, unless a higher one is noted.

        Raises:
            OSError: the note cannot be written; an older one claims less.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        descriptor = os.open(self._note, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # writers of many processes come in any order
            noted = _parsed(os.pread(descriptor, NUM_BYTES, 0))
            if noted is None or _is_before(noted, count):
                content = count.to_bytes(8, "big")
                os.pwrite(descriptor, content + zlib.crc32(content).to_bytes(4, "big"), 0)
        finally:
            os.close(descriptor)


def count_of(connection: sqlite3.Connection) -> int:
    """Return how many commits a database counts."""
    (count,) = connection.execute("PRAGMA user_version").fetchone()
    return int(count) % MODULUS


def _is_before(count: int, other: int) -> bool:
    return 0 < (other - count) % MODULUS < MODULUS // 2


def _parsed(note: bytes) -> int | None:
    content, crc = note[:8], note[8:NUM_BYTES]
    if len(note) < NUM_BYTES or zlib.crc32(content) != int.from_bytes(crc, "big"):
        return None
    return int.from_bytes(content, "big") % MODULUS
