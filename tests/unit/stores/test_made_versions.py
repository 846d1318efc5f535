"""Versions that tunings made, in a backup and back."""

import tarfile
from pathlib import Path

import pytest

from deployments.errors import RagError
from deployments.stores.backup import back_up, parse_manifest
from deployments.stores.database import Database
from deployments.stores.folders import LocalFolder
from deployments.stores.made_versions import Returned, parts_of
from deployments.stores.restore import read_manifest, restore


def silent(table: str, num_done: int, total: int) -> None:
    assert 0 <= num_done <= total, table


def made(root: Path, version: str, size: int) -> dict[str, bytes]:
    folder = root / version
    (folder / "adapter").mkdir(parents=True)
    (folder / "tuning.json").write_text("{}")
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(bytes(range(256)) * size)
    return contents(root)


def contents(root: Path) -> dict[str, bytes]:
    return {
        one.relative_to(root).as_posix(): one.read_bytes()
        for one in root.rglob("*")
        if one.is_file()
    }


def backed_up(database: Database, root: Path, place: Path) -> LocalFolder:
    folder = LocalFolder(place, is_new=True)
    back_up(database, folder, None, silent, parts_of(root))
    folder.publish()
    return LocalFolder(place)


def test_versions_come_back_as_they_were(database: Database, tmp_path: Path) -> None:
    root = tmp_path / "tuned"
    made(root, "facts@1", 3)
    before = made(root, "facts@2", 9001)
    (root / ".hidden").mkdir()
    folder = backed_up(database, root, tmp_path / "b")
    manifest = read_manifest(folder)
    assert {entry.name for entry in manifest.files if entry.num_rows is None} == {
        "tuned.facts@1.tar",
        "tuned.facts@2.tar",
    }
    made(root, "later@1", 1)
    (root / "facts@1" / "tuning.json").unlink()
    versions = Returned(root)
    versions.unpack(folder, manifest)
    restore(database, folder, manifest, is_replaced=True, progress=silent)
    versions.publish()
    assert contents(root) == before
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []


def test_discarded_versions_leave_what_is_there(database: Database, tmp_path: Path) -> None:
    root = tmp_path / "tuned"
    folder = backed_up(database, root, tmp_path / "b")
    before = made(root, "facts@1", 3)
    versions = Returned(root)
    versions.unpack(folder, read_manifest(folder))
    versions.discard()
    assert contents(root) == before


def test_archive_that_leads_elsewhere_is_refused(database: Database, tmp_path: Path) -> None:
    root, place = tmp_path / "tuned", tmp_path / "b"
    made(root, "facts@1", 1)
    folder = backed_up(database, root, place)
    manifest = read_manifest(folder)
    with tarfile.open(place / "tuned.facts@1.tar", "w") as archive:
        entry = tarfile.TarInfo("../../escaped")
        archive.addfile(entry)
    with pytest.raises(RagError, match="damaged"):
        read_manifest(folder)
    versions = Returned(root)
    with pytest.raises(RagError, match="cannot be read"):
        versions.unpack(folder, manifest)
    versions.discard()
    assert not (tmp_path.parent / "escaped").exists()


@pytest.mark.parametrize("name", ["tuned...tar", "tuned.a/b.tar", "tuned..x.tar"])
def test_name_of_no_version_is_refused(name: str, database: Database, tmp_path: Path) -> None:
    place = tmp_path / "b"
    made(tmp_path / "tuned", "facts@1", 1)
    folder = backed_up(database, tmp_path / "tuned", place)
    manifest = parse_manifest((place / "manifest.json").read_bytes())
    entry = next(one for one in manifest.files if one.num_rows is None)
    object.__setattr__(entry, "name", name)
    path = place / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes((place / "tuned.facts@1.tar").read_bytes())
    with pytest.raises(RagError, match="no version"):
        Returned(tmp_path / "tuned").unpack(folder, manifest)
