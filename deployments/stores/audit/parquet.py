"""A day's records as a Parquet file with page checksums and a seal."""

import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa

from deployments.errors import DatabaseDamaged
from deployments.stores.audit.chain import FORMAT
from deployments.stores.audit.facets import Facet
from deployments.stores.audit.rows import COLUMNS
from deployments.stores.seals import SealedWriter

GROUP_ROWS = 100_000
WHOLE = ("time_us", "writer", "sequence", "latency_us", "tokens_in", "tokens_out", "status")
SCHEMA = pa.schema(
    [
        *((name, pa.int64()) for name in WHOLE),
        *((name, pa.string()) for name in ("tenant", "key_id", "operation", "method")),
        *((name, pa.string()) for name in ("request_id", "address", "error", "touched")),
        ("hash", pa.binary(32)),
    ]
)


def pieces(
    rows: Iterable[tuple[Any, dict[int, Facet]]], said: Mapping[str, str]
) -> Generator[bytes]:
    """Yield the file's bytes, row group by row group."""
    writer = SealedWriter(SCHEMA)
    for group in _groups(rows):
        yield writer.write(_table(group))
    yield writer.finish({"ragserve.audit": str(FORMAT), **said})


def write_file(path: Path, content: Generator[bytes]) -> None:
    """Write a file that is on the disk, with its name, when this returns."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with closing(content), os.fdopen(descriptor, "wb") as file:
            for piece in content:
                file.write(piece)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names of a folder's files on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _table(group: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(group, schema=SCHEMA)


def _groups(rows: Iterable[tuple[Any, dict[int, Facet]]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    for row, facets in rows:
        values = dict(zip(COLUMNS, row, strict=True))
        facet = facets.get(values.pop("facet"))
        if facet is None:
            raise DatabaseDamaged("the audit log is broken: verify it")
        group.append(values | facet._asdict())
        if len(group) == GROUP_ROWS:
            yield group
            group = []
    if group:
        yield group
