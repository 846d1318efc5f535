"""A backup into a database: checked to the last bit first, then all of it in one transaction.

Every collection gets a new id, and an epoch above all that its name had. Followers and snapshots
belong to an id, so what a replica holds of the replaced state can never be mixed with the restored.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from alembic import command
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import JSON, Connection, MetaData, Table, select

from deployments.errors import Conflict, RagError
from deployments.stores.backup import (
    MANIFEST,
    PEPPER,
    Manifest,
    Progress,
    parse_manifest,
    revision_of,
    schema_of,
    tables_of,
)
from deployments.stores.bulk import insert_many
from deployments.stores.checksums import COLLECTION, row_checksum
from deployments.stores.damage import check_collection
from deployments.stores.database import Database
from deployments.stores.folders import BackupFolder
from deployments.stores.ids import new_id
from deployments.stores.migrations import alembic_config
from deployments.stores.seals import check_seal

READ_ROWS = 1000

After = Callable[[Connection], None]
Carry = Callable[[Connection], After]
"""What must outlive a restore, such as the record of what was erased: it is called with the state
that is to be replaced (perhaps without tables), and what it returns with the restored state, at the
newest revision, in the same transaction."""


def read_manifest(folder: BackupFolder) -> Manifest:
    """Return the manifest of a backup, after every file was compared with it.

    Raises:
        RagError: a file is missing, too many, or not what was written.
    """
    try:
        with folder.open(MANIFEST) as file:
            manifest = parse_manifest(file.read())
    except FileNotFoundError as error:
        raise RagError("there is no whole backup at this place: it has no manifest") from error
    expected = {file.name for file in manifest.files} | {MANIFEST}
    if folder.names() != expected or len(expected) != len(manifest.files) + 1:
        raise RagError("the backup has other files than its manifest names")
    for entry in manifest.files:
        digest, num_bytes = hashlib.sha256(), 0
        with folder.open(entry.name) as file:
            while block := file.read(1024 * 1024):
                digest.update(block)
                num_bytes += len(block)
        if (num_bytes, digest.hexdigest()) != (entry.num_bytes, entry.sha256):
            raise RagError(f"{entry.name} of the backup is damaged")
    return manifest


def read_pepper(folder: BackupFolder, manifest: Manifest) -> bytes | None:
    """Return the pepper of a checked backup, if it has one."""
    if all(entry.name != PEPPER for entry in manifest.files):
        return None
    with folder.open(PEPPER) as file:
        return file.read()


def restore(
    database: Database,
    folder: BackupFolder,
    manifest: Manifest,
    *,
    is_replaced: bool,
    progress: Progress,
    carried: Sequence[Carry] = (),
) -> None:
    """Put a checked backup in the place of what the database holds, all or nothing.

    Args:
        database: which nobody else uses.
        folder: the backup.
        manifest: from `read_manifest`.
        is_replaced: whether what the database holds may go.
        progress: is told how far it is.
        carried: what outlives it.

    Raises:
        Conflict: the database is not empty.
        RagError: the backup is of a newer revision, or a file is not of its table.
        StoreUnavailable: the database did not answer; nothing has changed.
    """
    with database.migration(is_replaced=True) as connection:
        config = alembic_config(connection)
        _check_revision(ScriptDirectory.from_config(config), manifest.revision)
        if not is_replaced and _has_rows(connection):
            raise Conflict("the database is not empty")
        epoch = _highest_epoch(connection) + 1
        after_all = [carry(connection) for carry in carried]
        everything = MetaData()
        everything.reflect(connection)
        everything.drop_all(connection)
        command.upgrade(config, manifest.revision)
        _fill(connection, folder, manifest, epoch, progress)
        command.upgrade(config, "head")
        for after in after_all:
            after(connection)


def _check_revision(scripts: ScriptDirectory, revision: str) -> None:
    try:
        known = scripts.get_revision(revision)
    except CommandError:
        known = None
    if known is None or known.revision != revision:
        raise RagError(f"the backup is of revision {revision}, which this version does not know")


def _has_rows(connection: Connection) -> bool:
    if revision_of(connection) is None:
        return bool(tables_of(connection))
    return any(
        connection.execute(select(table).limit(1)).first() is not None
        for table in tables_of(connection)
    )


def _highest_epoch(connection: Connection) -> int:
    for table in tables_of(connection):
        if table.name == "collections" and "epoch" in table.c:
            return max(connection.scalars(select(table.c.epoch)).all(), default=0)
    return 0


def _fill(
    connection: Connection,
    folder: BackupFolder,
    manifest: Manifest,
    epoch: int,
    progress: Progress,
) -> None:
    tables = tables_of(connection)
    counts = {e.name: e.num_rows for e in manifest.files if e.num_rows is not None}
    if {f"{table.name}.parquet" for table in tables} != {*counts}:
        raise RagError("the backup has other tables than its revision")
    new_ids: dict[str, str] = {}
    for table in tables:
        total, num_done = counts[f"{table.name}.parquet"], 0
        for rows in _rows(folder, table):
            if table.name == "collections":
                _renew(rows, new_ids, epoch)
            for row in rows:
                if "collection_id" in row:
                    row["collection_id"] = new_ids.get(row["collection_id"], row["collection_id"])
            insert_many(connection, table, rows)
            num_done += len(rows)
            progress(table.name, num_done, total)
        if num_done != total:
            raise RagError(f"{table.name}.parquet of the backup is damaged")


def _renew(rows: list[dict[str, Any]], new_ids: dict[str, str], epoch: int) -> None:
    for row in rows:
        if "checksum" in row:
            check_collection(row)
        new_ids[row["id"]] = row["id"] = new_id("col")
        if "epoch" in row:
            row["epoch"] = max(row["epoch"] + 1, epoch)
        if "checksum" in row:
            row["checksum"] = row_checksum(COLLECTION, row)


def _rows(folder: BackupFolder, table: Table) -> Iterator[list[dict[str, Any]]]:
    """Yield a table's rows in the order of its key; JSON as objects."""
    parsed = [column.name for column in table.columns if isinstance(column.type, JSON)]
    try:
        with folder.open(f"{table.name}.parquet") as source:
            check_seal(source)
            file = pq.ParquetFile(source, page_checksum_verification=True)
            if not file.schema_arrow.equals(schema_of(table)):
                raise RagError(f"{table.name}.parquet has other columns than its revision")
            for batch in file.iter_batches(READ_ROWS, use_threads=False):
                rows: list[dict[str, Any]] = batch.to_pylist()
                for row in rows:
                    row.update((name, json.loads(row[name])) for name in parsed)
                yield rows
    except (pa.ArrowException, OSError, ValueError) as error:
        raise RagError(f"{table.name}.parquet of the backup cannot be read") from error
