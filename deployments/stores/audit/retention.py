"""Keeping: days that are old enough go to files, and then their tables go as a whole.

A day leaves only when it is proved, and its heads are signed first: what stays is chained to them.
"""

import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, func, select

from deployments.config import AuditArgs
from deployments.stores.audit import archives, parquet
from deployments.stores.audit.chain import Head
from deployments.stores.audit.chains import Broken, Chains
from deployments.stores.audit.checkpoints import append_to_file, make_checkpoint, stored
from deployments.stores.audit.facets import Facet
from deployments.stores.audit.signing import Signer
from deployments.stores.audit.tables import DAY_US, day_of, day_table, days, facets
from deployments.stores.audit.verify import rows_of
from deployments.stores.database import Database
from deployments.stores.sql_errors import files_translated

log = logging.getLogger(__name__)

_broken: set[str] = set()
"""Days that this process has found to be wrong: they stay, and are told of once."""

_lock = threading.Lock()


def archive_old(
    database: Database, folder: Path, signer: Signer, args: AuditArgs, now_us: int
) -> list[str]:
    """Archive every day that ended `retention_days` ago; return those that went.

    Raises:
        StoreUnavailable: the database or a file could not be written; nothing is lost.
    """
    last = day_of(now_us - (args.retention_days + 1) * DAY_US)
    with database.read() as connection:
        old = connection.scalars(select(days.c.day).where(days.c.day <= last)).all()
    gone: list[str] = []
    for day in sorted(old):
        if not _archive(database, folder, signer, day, now_us):
            break  # later days continue its chains
        gone.append(day)
    return gone


def _archive(database: Database, folder: Path, signer: Signer, day: str, now_us: int) -> bool:
    """Return whether the day has gone; where it has not, it may go later."""
    with _lock:
        if day in _broken:
            return False
        make_checkpoint(database, signer, now_us, period_us=0)
        append_to_file(database, folder)
        part = folder / archives.FOLDER / f".{day}.{os.getpid()}"
        try:
            with files_translated():
                part.parent.mkdir(mode=0o700, exist_ok=True)
                written = _written(database, signer, day, part)
                return _go(database, signer, day, part, written)
        except Broken as broken:
            log.error("the audit log of %s stays, it is wrong: %s", day, broken.wrong.message)
            _broken.add(day)
            return False
        finally:
            part.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Written:
    """What a day's file holds."""

    sha256: str
    num_records: int
    heads: tuple[Head, ...]


def _written(database: Database, signer: Signer, day: str, part: Path) -> _Written:
    """Write the day's file, proving the day; writers go on meanwhile."""
    with database.read() as connection:
        anchors = archives.anchors(connection, signer)
        chains = Chains(anchors.heads, stored(database))
        proved = _Proved(connection, day, chains)
        parquet.write_file(part, parquet.pieces(proved, {"ragserve.audit.day": day}))
        there = set(connection.scalars(select(day_table(day).c.writer).distinct()))
    heads = tuple(head for head in chains.heads if head.writer in there)
    return _Written(archives.file_sha256(part), proved.num_rows, heads)


def _go(database: Database, signer: Signer, day: str, part: Path, written: _Written) -> bool:
    """Put the file in its place and the table out of it, unless somebody was there meanwhile."""
    with database.migration() as connection:
        if connection.scalar(select(days.c.day).where(days.c.day == day)) is None:
            return True  # another process was faster
        num_records = connection.scalar(select(func.count()).select_from(day_table(day)))
        if num_records != written.num_records:
            return False  # a wrong clock wrote to it: the next round takes that along
        name = f"{day}-{len(archives.read(connection, signer)) + 1}.parquet"
        part.replace(part.with_name(name))
        parquet.sync_folder(part.parent)
        archives.insert(
            connection,
            signer,
            day=day,
            file=name,
            sha256=written.sha256,
            num_records=written.num_records,
            heads=written.heads,
        )
        _drop(connection, day)
    return True


class _Proved:
    """The rows of a day, each of which continues its chain."""

    def __init__(self, connection: Connection, day: str, chains: Chains) -> None:
        self._connection = connection
        self._day = day
        self._chains = chains
        self.num_rows = 0

    def __iter__(self) -> Iterator[tuple[Any, dict[int, Facet]]]:
        with rows_of(self._connection, self._day) as rows:
            for row, known in rows:
                self._chains.follow(row, known)
                self.num_rows += 1
                yield row, known


def _drop(connection: Connection, day: str) -> None:
    connection.execute(delete(facets).where(facets.c.day == day))
    connection.execute(delete(days).where(days.c.day == day))
    day_table(day).drop(connection)
