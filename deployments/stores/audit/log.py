"""The audit log as a whole: opened once per process, written, read, proved and kept."""

import hashlib
import logging
import threading
from concurrent.futures import Future
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.engine import make_url

from deployments.config import AuditArgs, Settings
from deployments.errors import RagError
from deployments.stores.audit import (
    checkpoints,
    export,
    proving,
    queries,
    retention,
    verify,
    writers,
)
from deployments.stores.audit.signing import Signer, open_signer
from deployments.stores.audit.tables import create_tables
from deployments.stores.audit.writer import Clock, Writer, now_us
from deployments.stores.database import Database
from deployments.stores.pepper import pepper
from deployments.types.audit import AuditFilter, AuditRecord, Chained, Position, Verified

log = logging.getLogger(__name__)

TICK_S = 10.0
SCHEMA = "ragserve_audit"
"""Of PostgreSQL: apart from the other tables, which backups and restores take as a whole."""


class AuditLog:
    """What a process does with the log; safe to use from many threads."""

    def __init__(
        self,
        database: Database,
        state_path: Path,
        args: AuditArgs,
        clock: Clock = now_us,
        database_url: str = "",
    ) -> None:
        """Read the keys, or create them; `database_url` is the installation's setting."""
        self._database_url = database_url
        self._database = database
        self._folder = state_path
        self._args = args
        self._clock = clock
        self._key = seal_key(state_path)
        self._signer = open_signer(state_path)
        self._writer = Writer(database, self._key, clock)
        self._is_closed = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="audit-keeper", daemon=True)

    @property
    def signer(self) -> Signer:
        """Return what signs the checkpoints."""
        return self._signer

    @property
    def num_dropped(self) -> int:
        """Return how many records this process had to drop."""
        return self._writer.num_dropped

    @property
    def is_well(self) -> bool:
        """Return whether records can be written, as far as is known."""
        return self._writer.is_well

    def start(self) -> None:
        """Begin to write, to sign and to keep."""
        self._writer.start()
        self._keeper.start()

    def record(self, record: AuditRecord) -> None:
        """Take a record; it is on the disk within a second."""
        self._writer.record(record)

    def submit(self, record: AuditRecord) -> "Future[None]":
        """Take a record; the future is done when it is on the disk, or fails."""
        return self._writer.submit(record)

    def page(
        self, wanted: AuditFilter, *, limit: int, after: Position | None = None
    ) -> list[Chained]:
        """Return records, the newest first; of those, the ones before `after`."""
        return queries.page(self._database, wanted, limit=limit, after=after)

    def verify(self, *, with_files: bool = False) -> Verified:
        """Read everything, archived files as well where asked, and say where it is wrong first."""
        return verify.verify(
            self._database, self._folder, self._signer, self._key, with_files=with_files
        )

    def verify_apart(self) -> Verified:
        """Do what `verify` does in a process of its own; at most one at a time."""
        return proving.prove(self._folder, self._database_url)

    def export(self, path: Path, wanted: AuditFilter) -> int:
        """Write the records of a span to a Parquet file, the oldest first; return how many.

        Raises:
            OSError: the file cannot be written.
        """
        return export.export(self._database, path, wanted)

    def pseudonym(self, name: str) -> str:
        """Return what stands for a name that callers made up, perhaps a person's."""
        message = name.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(message, key=self._key, digest_size=16).hexdigest()

    def tick(self) -> None:
        """Do what is due: show that we live, close what the dead began, sign, archive."""
        now = self._clock()
        self._writer.open()
        assert self._writer.writer is not None
        writers.show(self._database, self._writer.writer, now)
        if writers.claim(self._database, self._writer.writer, now):
            self._close_inherited(now)
        checkpoints.make_checkpoint(self._database, self._signer, now)
        checkpoints.append_to_file(self._database, self._folder)
        retention.archive_old(self._database, self._folder, self._signer, self._args, now)

    def close(self) -> None:
        """Write what waits, and end."""
        self._is_closed.set()
        self._writer.close()
        if self._keeper.is_alive():
            self._keeper.join(TICK_S)
        self._database.close()

    def _close_inherited(self, now: int) -> None:
        self._writer.extend(
            lambda head, days: writers.close_inherited(self._database, self._key, head, now, days)
        )

    def _keep(self) -> None:
        while not self._is_closed.wait(TICK_S):
            try:
                self.tick()
            except RagError as error:
                log.warning("the audit log is not kept: %s", error.message)
            except Exception as error:  # the next round may succeed, and writing must go on
                log.error("the audit log is not kept: %s", type(error).__qualname__)


def open_audit(settings: Settings, args: AuditArgs, clock: Clock = now_us) -> AuditLog:
    """Return the log of an installation; its tables are made where they are missing.

    Raises:
        StoreUnavailable: the database did not answer; safe to retry.
    """
    database = open_database(settings)
    return AuditLog(database, settings.state_path, args, clock, settings.database_url)


def open_database(settings: Settings) -> Database:
    """Return the log's own database, `audit.db`, or its own schema in PostgreSQL's."""
    if not settings.database_url or make_url(settings.database_url).get_backend_name() == "sqlite":
        database = Database(f"sqlite:///{settings.state_path / 'audit.db'}")
    else:
        address = make_url(settings.database_url)
        main = Database(settings.database_url, pool_size=1)
        try:
            with main.migration() as connection:
                connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
        finally:
            main.close()
        inside = address.update_query_dict({"options": f"-csearch_path={SCHEMA}"})
        database = Database(inside.render_as_string(hide_password=False))
    create_tables(database)
    return database


def seal_key(state_path: Path) -> bytes:
    """Return the key of the seals, which follows from the installation's pepper."""
    key = pepper(state_path)
    return hashlib.blake2b(b"audit", key=key, digest_size=32, person=b"ragserve").digest()
