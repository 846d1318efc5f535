"""A backup: every table of one state of the database, the pepper, other files, and a manifest last.

It is of no particular database: what was backed up from SQLite can be restored into PostgreSQL.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

import pyarrow as pa
from alembic.runtime.migration import MigrationContext
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    cast,
    func,
    select,
)

from deployments.errors import RagError
from deployments.stores.database import Database
from deployments.stores.folders import BackupFolder
from deployments.stores.ids import utc_now
from deployments.stores.seals import SealedWriter

FORMAT = 1
MANIFEST = "manifest.json"
PEPPER = "pepper"
REVISIONS = "alembic_version"
READ_ROWS = 500
GROUP_BYTES = 8 * 1024 * 1024

Progress = Callable[[str, int, int], None]
"""Is told a table's name, how many of its rows are done, and how many it has."""

BackupPart = Callable[[], Iterator[bytes]]
"""Yields a file that is not of the database; raises OSError."""


@dataclass(frozen=True, slots=True)
class BackupFile:
    """A file of a backup; `num_rows` is None of what is no table."""

    name: str
    num_bytes: int
    sha256: str
    num_rows: int | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup holds. `revision` is the schema's; `seal` finds edits of the manifest."""

    format: int
    created_at: str
    revision: str
    files: tuple[BackupFile, ...]

    def to_json(self) -> bytes:
        """Return the manifest as it is written."""
        content = asdict(self)
        return json.dumps({**content, "seal": _seal(content)}, indent=2).encode()


def parse_manifest(raw: bytes) -> Manifest:
    """Return a manifest; raises RagError when it was edited, or is none that is known here."""
    try:
        content = json.loads(raw)
        seal = content.pop("seal")
        files = tuple(BackupFile(**file) for file in content["files"])
        manifest = Manifest(**{**content, "files": files})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RagError("the backup's manifest is damaged") from error
    if manifest.format != FORMAT:
        raise RagError("the backup has a format that this version does not know")
    if seal != _seal(asdict(manifest)) or raw != manifest.to_json():
        raise RagError("the backup's manifest is damaged")
    return manifest


def _seal(content: dict[str, Any]) -> str:
    canonical = json.dumps({**content, "files": [*content["files"]]}, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def back_up(
    database: Database,
    folder: BackupFolder,
    pepper: bytes | None,
    progress: Progress,
    others: Mapping[str, BackupPart] = MappingProxyType({}),
) -> Manifest:
    """Write every table as it is at one instant; writers go on meanwhile.

    Args:
        database: of any revision.
        folder: new; the caller publishes it.
        pepper: without which no key can be checked; None where there is none yet.
        progress: is told how far it is.
        others: what else belongs to it, by the names of the files.

    Raises:
        RagError: the database holds no tables.
        OSError: another file cannot be read.
        StoreUnavailable: the database did not answer; safe to retry.
    """
    files = []
    with database.read() as connection:
        revision = revision_of(connection)
        if revision is None:
            raise RagError("the database is empty: there is nothing to back up")
        created_at = utc_now()
        for table in tables_of(connection):
            files.append(_table(connection, table, folder, progress))
    if pepper is not None:
        files.append(_written(PEPPER, iter([pepper]), folder))
    for name, part in others.items():
        files.append(_written(name, part(), folder))
    manifest = Manifest(FORMAT, created_at, revision, tuple(files))
    folder.write(MANIFEST, iter([manifest.to_json()]))
    return manifest


def revision_of(connection: Connection) -> str | None:
    """Return the schema's revision; None: there is no schema."""
    return MigrationContext.configure(connection).get_current_revision()


def tables_of(connection: Connection) -> Sequence[Table]:
    """Return the tables that the database has, those that are referred to first."""
    metadata = MetaData()
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name != REVISIONS]


def arrow_type(column: Column[Any]) -> pa.DataType:
    """Return how a backup holds a column; JSON as its text."""
    if isinstance(column.type, Boolean):
        return pa.bool_()
    if isinstance(column.type, Integer):
        return pa.int64()
    return pa.binary() if isinstance(column.type, LargeBinary) else pa.string()


def schema_of(table: Table) -> pa.Schema:
    """Return the columns of a table's file."""
    return pa.schema([pa.field(column.name, arrow_type(column)) for column in table.columns])


def _table(
    connection: Connection, table: Table, folder: BackupFolder, progress: Progress
) -> BackupFile:
    total = connection.scalar(select(func.count()).select_from(table)) or 0
    pieces = _pieces(connection, table, total, progress)
    return replace(_written(f"{table.name}.parquet", pieces, folder), num_rows=total)


def _written(name: str, pieces: Iterator[bytes], folder: BackupFolder) -> BackupFile:
    digest = hashlib.sha256()
    num_bytes = 0

    def counted() -> Iterator[bytes]:
        nonlocal num_bytes
        for piece in pieces:
            digest.update(piece)
            num_bytes += len(piece)
            yield piece

    folder.write(name, counted())
    return BackupFile(name, num_bytes, digest.hexdigest(), None)


def _pieces(
    connection: Connection, table: Table, total: int, progress: Progress
) -> Iterator[bytes]:
    writer, schema = SealedWriter(schema_of(table)), schema_of(table)
    columns = [
        cast(column, Text).label(column.name) if isinstance(column.type, JSON) else column
        for column in table.columns
    ]
    statement = select(*columns).order_by(*table.primary_key.columns)
    rows = connection.execute(statement, execution_options={"yield_per": READ_ROWS})
    group: list[Any] = []
    size = num_done = 0
    for part in rows.partitions():
        group += part
        num_done += len(part)
        size += sum(len(v) for row in part for v in row if isinstance(v, bytes | str))
        if size >= GROUP_BYTES:
            yield writer.write(_group(group, schema))
            group, size = [], 0
            progress(table.name, num_done, total)
    if group:
        yield writer.write(_group(group, schema))
    progress(table.name, num_done, total)
    yield writer.finish({"ragserve.table": table.name})


def _group(rows: list[Any], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)
