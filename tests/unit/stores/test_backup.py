"""Backups: whole, of one instant, checked before anything is touched, restored at once."""

import errno
import hashlib
import json
import os
import random
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import Connection, insert, select, text

from deployments.config import RetrieverArgs
from deployments.errors import CollectionNotFound, Conflict, RagError
from deployments.stores import schema
from deployments.stores.backup import (
    MANIFEST,
    PEPPER,
    Manifest,
    Progress,
    back_up,
    parse_manifest,
    revision_of,
)
from deployments.stores.collection_rows import change_collection
from deployments.stores.collections import CollectionStore, require_collection
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.erasures import ErasureStore
from deployments.stores.folders import LocalFolder, backup_folder
from deployments.stores.keys import KeyStore
from deployments.stores.migrations import alembic_config
from deployments.stores.restore import After, Carry, read_manifest, read_pepper, restore
from deployments.stores.search import Searcher
from deployments.stores.suppressions import Suppressions
from deployments.types import ErasureScope, SearchRequest
from tests.unit.stores.material import FORKSERVER, MODEL, doc, put, vector
from tests.unit.stores.restorer import put_back


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


@pytest.fixture
def filled(database: Database) -> Database:
    put(database, [doc("1", "alpha " * 9, a=[1, "x"]), doc("2", "多语言 🦜", b=None), doc("3", "")])
    put(database, [doc("1", "other"), doc("4", "β" * 50)], "d")
    DocumentStore(database).delete("c", "2")
    return database


@pytest.fixture
def other(tmp_path: Path, migrated_file: Path) -> Iterator[Database]:
    shutil.copy(migrated_file, tmp_path / "other.db")
    database = Database(f"sqlite:///{tmp_path / 'other.db'}")
    yield database
    database.close()


def test_every_table_comes_back(filled: Database, other: Database, tmp_path: Path):
    manifest = written(filled, tmp_path / "b")
    names = {f"{table.name}.parquet" for table in schema.metadata.sorted_tables}
    assert {file.name for file in manifest.files} == names | {PEPPER}
    restored(other, tmp_path / "b")
    assert rows(other) == rows(filled)
    assert all(rows(filled)[table] for table in ("collections", "documents", "chunks"))
    request = SearchRequest(collection="c", query="alpha", mode="dense")
    searchers = [Searcher(one, RetrieverArgs()) for one in (filled, other)]
    hits = [one.search(request, vector("alpha"), MODEL) for one in searchers]
    assert hits[0] == hits[1] != []


def test_restore_into_no_database_at_all(filled: Database, tmp_path: Path):
    written(filled, tmp_path / "b")
    fresh = Database(f"sqlite:///{tmp_path / 'new' / 'x.db'}")
    restored(fresh, tmp_path / "b")
    assert rows(fresh) == rows(filled)
    fresh.close()


def test_backup_is_for_its_owner_only(filled: Database, tmp_path: Path):
    written(filled, tmp_path / "b")
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "b").iterdir()} == {0o600}


def test_keys_work_after_a_restore(filled: Database, other: Database, tmp_path: Path):
    key, bearer = KeyStore(filled, tmp_path / "state").create("k", is_admin=True)
    pepper = (tmp_path / "state" / "pepper").read_bytes()
    manifest = written(filled, tmp_path / "b", pepper)
    restored(other, tmp_path / "b")
    (tmp_path / "fresh").mkdir()
    secret = read_pepper(LocalFolder(tmp_path / "b"), manifest)
    assert secret is not None
    (tmp_path / "fresh" / "pepper").write_bytes(secret)
    assert KeyStore(other, tmp_path / "fresh").verify(bearer).id == key.id


def test_full_database_is_replaced_only_on_request(
    filled: Database, other: Database, tmp_path: Path
):
    written(filled, tmp_path / "b")
    put(other, [doc("old")], "mine")
    before = rows(other)
    with pytest.raises(Conflict):
        restored(other, tmp_path / "b")
    assert rows(other) == before
    restored(other, tmp_path / "b", is_replaced=True)
    assert rows(other) == rows(filled)


def test_running_follower_starts_anew_after_a_restore(filled: Database, tmp_path: Path):
    written(filled, tmp_path / "b")
    searcher = Searcher(filled, RetrieverArgs())
    for number in range(5):
        put(filled, [doc(f"new{number}", "omega")])
    request = SearchRequest(collection="c", query="omega", mode="dense", top_k=50)
    found = searcher.search(request, vector("omega"), MODEL)
    assert "new4" in {chunk.document_id for chunk in found}
    with filled.read() as connection:
        old = {row.id: row.epoch for row in connection.execute(select(schema.collections))}
    restored(filled, tmp_path / "b", is_replaced=True)
    with filled.read() as connection:
        new = {row.id: row.epoch for row in connection.execute(select(schema.collections))}
    assert not {*old} & {*new}
    assert min(new.values()) > max(old.values())
    for number in range(5):  # the same sequence numbers as before, with other documents
        put(filled, [doc(f"after{number}", "omega")])
    found = searcher.search(request, vector("omega"), MODEL)
    ids = {chunk.document_id for chunk in found}
    assert "after4" in ids
    assert not any(one.startswith("new") for one in ids)


def test_older_revision_is_migrated(other: Database, tmp_path: Path):
    old = Database(f"sqlite:///{tmp_path / 'old.db'}")
    with old.migration() as connection:
        command.upgrade(alembic_config(connection), "0001")
        _old_rows(connection)
    manifest = written(old, tmp_path / "b")
    assert manifest.revision == "0001"
    restored(other, tmp_path / "b")
    assert DocumentStore(other).get("c", "1").document.text == "text"
    info = CollectionStore(other).get("c")
    assert (info.metric, info.num_chunks) == ("cosine", 1)
    old.close()


def _old_rows(connection: Connection) -> None:
    now = "2026-01-02T03:04:05.000000Z"
    c, d, k = schema.collections, schema.documents, schema.chunks
    collection = {"id": "col_1", "name": "c", "description": "", "embedding_model": MODEL, "dim": 1}
    numbers = {"sequence": 1, "next_chunk_number": 1, "log_start": 0, "created_at": now}
    connection.execute(insert(c).values(collection | numbers))
    document = {"collection_id": "col_1", "id": "1", "title": "", "text": "text", "metadata": {}}
    rest = {"content_hash": b"h" * 32, "num_chunks": 1, "created_at": now, "updated_at": now}
    connection.execute(insert(d).values(document | rest))
    chunk = {"collection_id": "col_1", "number": 0, "id": "chk_1", "document_id": "1", "start": 0}
    chunk |= {"end": 4, "sequence": 1, "text": "text", "vector": b"\0\0\x80?"}
    connection.execute(insert(k).values(chunk))


def test_newer_revision_is_refused(filled: Database, other: Database, tmp_path: Path):
    with filled.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    written(filled, tmp_path / "b")
    before = rows(other)
    with pytest.raises(RagError, match="9999"):
        restored(other, tmp_path / "b")
    assert rows(other) == before


def test_backup_of_an_empty_file_is_refused(tmp_path: Path):
    database = Database(f"sqlite:///{tmp_path / 'none.db'}")
    with pytest.raises(RagError, match="empty"):
        written(database, tmp_path / "b")
    database.close()


def test_carried_things_outlive_a_restore(filled: Database, other: Database, tmp_path: Path):
    def carry(before: Connection) -> After:
        names = before.scalars(select(schema.collections.c.name)).all()

        def after(connection: Connection) -> None:
            assert revision_of(connection) is not None
            for name in names:
                row = require_collection(connection, "c")
                change_collection(connection, row, description=name)

        return after

    written(filled, tmp_path / "b")
    put(other, [doc("1")], "mine")
    restored(other, tmp_path / "b", is_replaced=True, carried=[carry])
    assert CollectionStore(other).get("c").description == "mine"


def test_what_was_erased_after_a_backup_stays_erased(database: Database, tmp_path: Path):
    pepper = b"p" * 32
    put(database, [doc("a", "one text"), doc("b", "other text")])
    written(database, tmp_path / "b", pepper)
    scope = ErasureScope(tenant="default", collection="c", document_ids=("a",))
    erasure = ErasureStore(database, pepper).erase(scope)
    carried = [Suppressions(pepper).carry]
    for _ in range(2):  # and it is remembered for the next time
        restored(database, tmp_path / "b", is_replaced=True, carried=carried)
        assert CollectionStore(database).get("c").num_documents == 1
        assert DocumentStore(database).get("c", "b").document.text == "other text"
        assert ErasureStore(database, pepper).get("default", erasure.id) == erasure


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


def test_manifest_knows_other_versions():
    manifest = Manifest(1, "now", "0001", ())
    assert parse_manifest(manifest.to_json()) == manifest
    with pytest.raises(RagError, match="format"):
        parse_manifest(Manifest(2, "now", "0001", ()).to_json())


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
