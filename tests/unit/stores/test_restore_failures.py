"""A backup is checked before anything is touched; a restore that fails leaves all as it was."""

import hashlib
import json
import random
import shutil
from pathlib import Path

import pytest
from sqlalchemy import text

from deployments.errors import CollectionNotFound, RagError
from deployments.stores.backup import MANIFEST, Manifest, parse_manifest
from deployments.stores.collections import CollectionStore
from deployments.stores.database import Database
from deployments.stores.keys import KeyStore
from tests.unit.stores.backups import restored, rows, written
from tests.unit.stores.material import FORKSERVER, doc, put
from tests.unit.stores.restorer import put_back


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory, migrated_file: Path) -> Path:
    folder = tmp_path_factory.mktemp("intact")
    shutil.copy(migrated_file, folder / "x.db")
    database = Database(f"sqlite:///{folder / 'x.db'}")
    KeyStore(database, folder).create("k")
    put(database, [doc(f"d{i}", f"text {i} " * 9) for i in range(30)])
    written(database, folder / "a")
    put(database, [doc("later")])
    written(database, folder / "b")
    database.close()
    return folder


def test_newer_revision_is_refused(filled: Database, other: Database, tmp_path: Path):
    with filled.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    written(filled, tmp_path / "b")
    before = rows(other)
    with pytest.raises(RagError, match="9999"):
        restored(other, tmp_path / "b")
    assert rows(other) == before


@pytest.mark.parametrize("seed", range(200))
def test_damaged_backup_is_refused_and_touches_nothing(
    seed: int, intact: Path, tmp_path: Path, other: Database
):
    damaged = tmp_path / "damaged"
    shutil.copytree(intact / "b", damaged)
    damage(damaged, intact / "a", random.Random(seed))
    with pytest.raises(RagError):
        restored(other, damaged)
    with pytest.raises(CollectionNotFound):
        CollectionStore(other).get("c")


def damage(folder: Path, older: Path, rng: random.Random) -> None:
    names = sorted(file.name for file in folder.iterdir())
    path = folder / rng.choice(names)
    content = path.read_bytes()
    place = rng.randrange(len(content))
    kind = rng.randrange(7)
    if kind == 0:
        path.write_bytes(content[:place])
    elif kind == 1:
        path.unlink()
    elif kind == 2:
        (folder / f"{rng.randrange(100)}.parquet").write_bytes(content)
    elif kind == 3:
        mine, theirs = rng.sample([name for name in names if name != MANIFEST], 2)
        (folder / mine).write_bytes((folder / theirs).read_bytes())
    elif kind == 4:  # the file of another backup, which is whole in itself
        name = rng.choice(["collections.parquet", "documents.parquet", "chunks.parquet", MANIFEST])
        (folder / name).write_bytes((older / name).read_bytes())
    elif kind == 5:
        edit(folder / MANIFEST, rng)
    else:
        flipped = bytes([content[place] ^ (1 << rng.randrange(8))])
        path.write_bytes(content[:place] + flipped + content[place + 1 :])


def edit(path: Path, rng: random.Random) -> None:
    content = json.loads(path.read_text())
    edits = [
        lambda: content.update(revision="0001"),
        lambda: content.update(format=2),
        lambda: content.update(created_at="2020-01-01T00:00:00.000000Z"),
        lambda: content["files"].pop(),
        lambda: content["files"][0].update(num_rows=content["files"][0]["num_rows"] + 1),
        lambda: content["files"][0].update(name="../pepper"),
        lambda: content["files"].append(content["files"][0]),
        lambda: content.update(more=1),
    ]
    rng.choice(edits)()
    path.write_text(json.dumps(content, indent=2))


def test_file_of_another_table_is_refused_even_with_a_fitting_manifest(
    intact: Path, tmp_path: Path, other: Database
):
    forged = tmp_path / "forged"
    shutil.copytree(intact / "b", forged)
    manifest = parse_manifest((forged / MANIFEST).read_bytes())
    shutil.copy(forged / "documents.parquet", forged / "chunks.parquet")
    content = (forged / "chunks.parquet").read_bytes()
    files = [
        type(one)(one.name, len(content), hashlib.sha256(content).hexdigest(), one.num_rows)
        if one.name == "chunks.parquet"
        else one
        for one in manifest.files
    ]
    made = Manifest(manifest.format, manifest.created_at, manifest.revision, tuple(files))
    (forged / MANIFEST).write_bytes(made.to_json())
    before = rows(other)
    with pytest.raises(RagError):
        restored(other, forged)
    assert rows(other) == before


@pytest.mark.parametrize("num_steps", range(4))
def test_restore_killed_in_the_middle_leaves_the_old_state(
    num_steps: int, intact: Path, other: Database, tmp_path: Path
):
    put(other, [doc("old", "old text")], "mine")
    before = rows(other)
    url = f"sqlite:///{tmp_path / 'other.db'}"
    ours, theirs = FORKSERVER.Pipe()
    process = FORKSERVER.Process(target=put_back, args=(url, str(intact / "b"), theirs))
    process.start()
    theirs.close()
    for _ in range(num_steps):
        assert ours.recv()[0] != "end"
        ours.send("go")
    ours.recv()
    process.kill()
    process.join(10)
    assert rows(other) == before
    restored(other, intact / "b", is_replaced=True)
    assert CollectionStore(other).get("c").num_documents == 31
