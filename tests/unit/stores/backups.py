"""Backups as tests make them, put them back, and compare what came."""

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import select

from deployments.stores import schema
from deployments.stores.backup import Manifest, Progress, back_up
from deployments.stores.database import Database
from deployments.stores.folders import LocalFolder, backup_folder
from deployments.stores.restore import Carry, read_manifest, restore


def silent(table: str, num_done: int, total: int) -> None:
    assert 0 <= num_done <= total, table


def written(
    database: Database,
    place: Path | str,
    pepper: bytes | None = b"p" * 32,
    progress: Progress = silent,
) -> Manifest:
    folder = backup_folder(str(place), is_new=True)
    try:
        manifest = back_up(database, folder, pepper, progress)
        folder.publish()
    finally:
        folder.discard()
    return manifest


def restored(
    database: Database,
    place: Path,
    *,
    is_replaced: bool = False,
    carried: Sequence[Carry] = (),
) -> None:
    folder = LocalFolder(place)
    manifest = read_manifest(folder)
    restore(database, folder, manifest, is_replaced=is_replaced, progress=silent, carried=carried)


def rows(database: Database) -> dict[str, list[tuple[object, ...]]]:
    """Return every row, without the ids, epochs and their checksums that a restore renews."""
    found = {}
    with database.read() as connection:
        for table in schema.metadata.sorted_tables:
            renewed = {"collection_id", "epoch"} | (
                {"id", "checksum"} if table.name == "collections" else set()
            )
            columns = [column for column in table.c if column.name not in renewed]
            found[table.name] = sorted(map(repr, connection.execute(select(*columns))))
    return found
