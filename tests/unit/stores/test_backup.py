"""Backups: whole, of one instant, in a new place, or not at all."""

import errno
import os
import shutil
import stat
import subprocess
import threading
from pathlib import Path

import pytest
from sqlalchemy import select

from deployments.errors import Conflict, RagError
from deployments.stores import schema
from deployments.stores.backup import Manifest, parse_manifest
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.folders import backup_folder
from deployments.stores.restore import read_manifest, restore
from tests.unit.stores.backups import restored, rows, silent, written
from tests.unit.stores.material import doc, put


def test_backup_is_for_its_owner_only(filled: Database, tmp_path: Path):
    written(filled, tmp_path / "b")
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "b").iterdir()} == {0o600}


def test_backup_of_an_empty_file_is_refused(tmp_path: Path):
    database = Database(f"sqlite:///{tmp_path / 'none.db'}")
    with pytest.raises(RagError, match="empty"):
        written(database, tmp_path / "b")
    database.close()


def test_manifest_knows_other_versions():
    manifest = Manifest(1, "now", "0001", ())
    assert parse_manifest(manifest.to_json()) == manifest
    with pytest.raises(RagError, match="format"):
        parse_manifest(Manifest(2, "now", "0001", ()).to_json())


def test_backup_is_one_instant_of_a_busy_database(
    database: Database, other: Database, tmp_path: Path
):
    stop = threading.Event()
    ids = [f"d{i}" for i in range(20)]
    put(database, [doc(key, "version 0 " * 5) for key in ids])

    def write() -> None:
        version = 0
        while not stop.is_set():
            version += 1
            put(database, [doc(key, f"version {version} " * 5) for key in ids])
            put(database, [doc(f"more{version}", "x" * 50)], "d")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(4):
            written(database, tmp_path / f"b{number}")
    finally:
        stop.set()
        writer.join()
    for number in range(4):
        restored(other, tmp_path / f"b{number}", is_replaced=True)
        store = DocumentStore(other)
        assert len({store.get("c", key).document.text for key in ids}) == 1
        with other.read() as connection:
            documents = connection.scalars(select(schema.documents.c.num_chunks)).all()
            assert sum(documents) == len(connection.execute(select(schema.chunks.c.id)).all())


def test_backup_needs_a_new_folder(filled: Database, tmp_path: Path):
    (tmp_path / "b").mkdir()
    with pytest.raises(Conflict):
        written(filled, tmp_path / "b")


def test_interrupted_backup_leaves_nothing(filled: Database, tmp_path: Path):
    def interrupt(table: str, num_done: int, total: int) -> None:
        if table == "documents":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        written(filled, tmp_path / "places" / "b", None, interrupt)
    assert list((tmp_path / "places").iterdir()) == []


def test_full_disk_is_an_error_and_leaves_nothing(filled: Database, tmp_path: Path):
    if os.geteuid() or shutil.which("mount") is None:
        pytest.skip("mounting needs root")
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        put(filled, [doc("large", "".join(map(str, range(60_000))))])
        with pytest.raises(OSError, match="No space") as caught:
            written(filled, small / "b")
        assert caught.value.errno == errno.ENOSPC
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_backup_in_an_object_store(filled: Database, other: Database, tmp_path: Path):
    place = f"memory://backups/{tmp_path.name}"
    manifest = written(filled, place)
    with pytest.raises(Conflict):
        backup_folder(place, is_new=True)
    again = backup_folder(place)
    assert read_manifest(again) == manifest
    restore(other, again, manifest, is_replaced=False, progress=silent)
    assert rows(other) == rows(filled)


def test_interrupted_backup_in_an_object_store_is_none(filled: Database, tmp_path: Path):
    def interrupt(table: str, num_done: int, total: int) -> None:
        if table == "chunks":
            raise KeyboardInterrupt

    place = f"memory://interrupted/{tmp_path.name}"
    with pytest.raises(KeyboardInterrupt):
        written(filled, place, None, interrupt)
    assert backup_folder(place).names() == set()
    with pytest.raises(RagError, match="no whole backup"):
        read_manifest(backup_folder(place))
