"""Proving the log: everything is read once, and the first place that is wrong is named.

What an editor of the database can do without the installation's secrets is found out: a record that
was changed, removed, inserted or moved does not fit its chain; one who computes a chain anew meets
the signed checkpoints, and at its end the seal of its head. Whoever has the secrets, or takes the
database and the file of checkpoints back to an older state together, is found out only by a copy of
that file.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, select

from deployments.stores.audit import archives, facets
from deployments.stores.audit.chain import Head, is_sealed
from deployments.stores.audit.chains import Broken, Chains
from deployments.stores.audit.checkpoints import Checkpoint, digest, in_file, stored
from deployments.stores.audit.rows import columns_of
from deployments.stores.audit.signing import Signer
from deployments.stores.audit.tables import day_table, days, writers
from deployments.stores.database import Database
from deployments.types.audit import Position, Verified, Wrong

READ_ROWS = 5_000
Row = tuple[Any, dict[int, facets.Facet]]


def verify(
    database: Database, folder: Path, signer: Signer, key: bytes, *, with_files: bool = False
) -> Verified:
    """Return what was read, and what is wrong first; writers go on meanwhile.

    `with_files`: the archives' files are read, too; otherwise only what is signed of them is.
    """
    reader = Reader(signer, key)
    wrong = None
    try:
        signed = [*checkpoints_of(database, folder, signer)]  # older than the state that is read
        with database.read() as connection:
            reader.read(connection, signed)
            if with_files:
                archives.check_files(archives.read(connection, signer), folder)
    except Broken as broken:
        wrong = broken.wrong
    return Verified(reader.num_records, reader.num_checkpoints, reader.num_archived_days, wrong)


class Reader:
    """Reads one state of the log from its beginning to its end."""

    def __init__(self, signer: Signer, key: bytes) -> None:
        """Take what checkpoints and seals are checked with."""
        self._signer = signer
        self._key = key
        self.num_records = 0
        self.num_checkpoints = 0
        self.num_archived_days = 0

    def read(self, connection: Connection, signed: list[Checkpoint]) -> None:
        """Read everything; raises Broken."""
        self.num_checkpoints = len(signed)
        anchors = archives.anchors(connection, self._signer)
        self.num_archived_days = anchors.num_days
        heads = connection.execute(select(writers).order_by(writers.c.id)).all()
        written = {row.id: row for row in heads}
        chains = Chains(anchors.heads, signed)
        self._check_days(connection)
        for day in connection.scalars(select(days.c.day).order_by(days.c.day)).all():
            with rows_of(connection, day) as rows:
                for row, known in rows:
                    chains.follow(row, known)
                    self.num_records += 1
        chains.check_met()
        self._check_heads(written, chains)

    def _check_days(self, connection: Connection) -> None:
        known = {f"audit_{day.replace('-', '')}" for day in connection.scalars(select(days.c.day))}
        names = {name for name in inspect(connection).get_table_names() if name[6:].isdigit()}
        if known != names:
            name = min(known ^ names)
            raise Broken(Wrong("missing", f"the records of a whole day are gone: {name}"))

    def _check_heads(self, written: dict[int, Any], chains: Chains) -> None:
        for writer in range(1, max((*written, *(head.writer for head in chains.heads), 0)) + 1):
            row, head = written.get(writer), chains.head(writer)
            place = Position(head.time_us, writer, head.sequence)
            if row is None:
                raise Broken(Wrong("writer", "a whole chain is gone", place))
            said = Head(writer, row.sequence, row.time_us, row.hash)
            if not is_sealed(self._key, said, row.seal):
                raise Broken(Wrong("head", "the seal of the chain's head is not ours", place))
            if said.sequence > head.sequence:
                raise Broken(Wrong("tail", "the chain's last records are gone", place))
            if (said.sequence, said.hash) != (head.sequence, head.hash):
                raise Broken(Wrong("inserted", "the chain goes on after its head", place))


@contextmanager
def rows_of(connection: Connection, day: str) -> Iterator[Iterator[Row]]:
    """Lend a day's rows in order, each with the facets of the day; read as they are needed."""
    table, known = day_table(day), facets.known(connection, day)
    ordered = (table.c.time_us, table.c.writer, table.c.sequence)
    statement = select(*columns_of(table)).order_by(*ordered)
    options = {"yield_per": READ_ROWS}
    with connection.execute(statement, execution_options=options) as found:
        yield ((row, known) for row in found)


def checkpoints_of(database: Database, folder: Path, signer: Signer) -> Iterator[Checkpoint]:
    """Yield the checkpoints; those of the file must be those of the database.

    Raises:
        Broken: one is missing, not signed by us, or another than the file has.
    """
    previous = ""
    filed = [*in_file(folder)]  # never ahead of the database, so it is read first
    for number, (checkpoint, beside) in enumerate(zip_longest(stored(database), filed), start=1):
        if checkpoint is None:
            message = f"checkpoint {beside.number} is in the file, but not in the database"
            raise Broken(Wrong("checkpoint", message))
        if beside is not None and beside.line != checkpoint.line:
            message = f"checkpoint {checkpoint.number} is another one in the file"
            raise Broken(Wrong("checkpoint", message))
        is_next = (checkpoint.number, checkpoint.previous) == (number, previous)
        if not is_next or not signer.is_signed(checkpoint.body.encode(), checkpoint.signature):
            message = f"checkpoint {number} is missing or not the one that was signed"
            raise Broken(Wrong("checkpoint", message))
        previous = digest(checkpoint.body)
        yield checkpoint
