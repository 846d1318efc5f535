"""Damaged and foreign snapshots: no wrong answer, no crash, and the database answers instead."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from deployments.stores import changes, lexical, manifest
from deployments.stores.buckets import Shard
from deployments.stores.collection_rows import change_collection
from deployments.stores.collections import require_collection
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from tests.unit.stores.replica import Replica, fill

NUM_VARIANTS = 200
MANIFEST = manifest.FILE

Damage = Callable[[bytes, random.Random], bytes]


def flip(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 8])):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def truncate(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def zero(content: bytes, rng: random.Random) -> bytes:
    size = min(len(content), rng.choice([16, 512, 4096]))
    first = rng.randrange(len(content) - size + 1)
    return content[:first] + bytes(size) + content[first + size :]


def extend(content: bytes, rng: random.Random) -> bytes:
    return content + rng.randbytes(rng.randrange(1, 64))


DAMAGES: list[Damage] = [flip, truncate, zero, extend]


class Saved:
    """A snapshot that can be damaged and put back, and what the right answers are."""

    def __init__(self, database: Database, state: Path) -> None:
        self.database, self.state = database, state
        self.folder = self.written(state)
        self.copy = state.parent / "copy"
        shutil.copytree(self.folder, self.copy)
        self.right = Replica(database, state.parent / "empty").answers()

    def written(self, state: Path) -> Path:
        replica = Replica(self.database, state)
        replica.find()
        replica.maintenance.round()
        replica.close()
        (found,) = (one for one in state.glob("snapshots/*/*/*") if one.name.isdecimal())
        return found

    def names(self) -> list[str]:
        return sorted(str(p.relative_to(self.copy)) for p in self.copy.rglob("*") if p.is_file())

    def put_back(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.copy, self.folder)

    def is_refused(self) -> bool:
        """Start a replica; whatever it does with the snapshot, it must answer right."""
        replica = Replica(self.database, self.state)
        replica.find()
        assert replica.answers() == self.right
        is_gone = not self.folder.exists()
        counts = (replica.snapshots.num_loaded, replica.snapshots.num_refused)
        replica.close()
        assert counts == ((0, 1) if is_gone else (1, 0))
        return is_gone


@pytest.fixture
def saved(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Saved:
    monkeypatch.setattr(lexical.LexicalIndex.__init__, "__defaults__", (None, 10))
    fill(database, 25)
    return Saved(database, tmp_path / "state")


def test_every_damaged_file_is_refused(saved: Saved, database: Database):
    """Every variant is loaded as at a start; of every 50th, the whole start is made."""
    replica = Replica(database, saved.state)
    (head,) = changes.heads(database.rows).values()
    sequence, rng, number = int(saved.folder.name), random.Random(7), 0
    assert len(saved.names()) > 8
    for name in saved.names():
        content = (saved.copy / name).read_bytes()
        for variant in range(NUM_VARIANTS):
            damage = DAMAGES[variant % len(DAMAGES)]
            damaged = damage(content, rng)
            if damaged == content:
                damaged = content[:-1]
            (saved.folder / name).write_bytes(damaged)
            with pytest.raises(manifest.Damaged):
                replica.snapshots._load(saved.folder, sequence, head)
            number += 1
            if number % 50 == 0:
                assert saved.is_refused(), (name, damage.__name__)
                saved.put_back()
        (saved.folder / name).write_bytes(content)
    replica.snapshots._load(saved.folder, sequence, head)
    assert not saved.is_refused(), "it was good before it was damaged"


def test_swapped_missing_and_surplus_files_are_refused(saved: Saved):
    names = [name for name in saved.names() if name != MANIFEST]
    for first, second in zip(names, names[1:], strict=False):
        saved.put_back()
        contents = [(saved.copy / name).read_bytes() for name in (first, second)]
        for name, content in zip((second, first), contents, strict=True):
            (saved.folder / name).write_bytes(content)
        assert saved.is_refused() == (contents[0] != contents[1])
    for name in saved.names():
        saved.put_back()
        (saved.folder / name).unlink()
        assert saved.is_refused(), name
    saved.put_back()
    (saved.folder / "dense" / "surplus").touch()
    assert saved.is_refused()


def test_links_to_elsewhere_are_refused(saved: Saved, tmp_path: Path):
    name = next(one for one in saved.names() if one.startswith("dense"))
    target = tmp_path / "elsewhere"
    target.write_bytes(flip((saved.copy / name).read_bytes(), random.Random(1)))
    (saved.folder / name).unlink()
    (saved.folder / name).symlink_to(target)
    assert saved.is_refused()


def test_files_of_an_older_version_or_another_collection_are_refused(
    saved: Saved, database: Database, tmp_path: Path
):
    older = {name: (saved.copy / name).read_bytes() for name in saved.names()}
    fill(database, 10, first=25)
    newer = Saved(database, tmp_path / "second" / "state")
    for name in newer.names():
        if name in older and name != MANIFEST:
            newer.put_back()
            (newer.folder / name).write_bytes(older[name])
            assert newer.is_refused() == (older[name] != (newer.copy / name).read_bytes())
    newer.put_back()
    shutil.rmtree(newer.folder)
    shutil.copytree(saved.copy, newer.folder)  # the whole older one under the newer's name
    assert newer.is_refused()


EDITS = {
    "format": 2,
    "collection_id": "col_another",
    "shard": [1, 2],
    "epoch": 1,
    "dim": 9,
    "embedding_model": "another",
    "metric": "l2",
    "kind": "hnsw",
    "storage": "fp16",
    "sequence": 2,
    "num_chunks": 3,
    "files": {},
}


@pytest.mark.parametrize("is_signed", [True, False])
def test_edited_manifest_is_refused(saved: Saved, is_signed: bool):
    for name, value in EDITS.items():
        saved.put_back()
        path = saved.folder / MANIFEST
        body = json.loads(path.read_text())
        assert body["snapshot"][name] != value
        body["snapshot"][name] = value
        if is_signed:
            body["sha256"] = manifest._digest(body["snapshot"])
        path.write_text(json.dumps(body))
        assert saved.is_refused(), name


def test_no_manifest_at_all_is_refused(saved: Saved):
    for content in (b"", b"[]", b"{}", b"null", b'{"snapshot": 1, "sha256": 2}', b"\xdc\xff"):
        saved.put_back()
        (saved.folder / MANIFEST).write_bytes(content)
        assert saved.is_refused(), content
    saved.put_back()
    (saved.folder / MANIFEST).write_bytes(b"[" * 100_000)
    assert saved.is_refused()


def test_verified_file_that_does_not_load_is_refused(saved: Saved, monkeypatch: pytest.MonkeyPatch):
    for error in (ValueError, KeyError, RuntimeError, MemoryError, BaseException):

        def fail(*_: object, error: type[BaseException] = error) -> None:
            raise error

        saved.put_back()
        with monkeypatch.context() as patch:
            patch.setattr(lexical.LexicalIndex, "load", fail)
            assert saved.is_refused(), error


def test_snapshot_of_the_future_is_refused(saved: Saved):
    future = saved.folder.with_name("99")
    saved.folder.rename(future)
    saved.folder = future
    body = json.loads((future / MANIFEST).read_text())
    body["snapshot"]["sequence"] = 99
    body["sha256"] = manifest._digest(body["snapshot"])
    (future / MANIFEST).write_text(json.dumps(body))
    assert saved.is_refused()


def test_snapshot_of_another_history_is_refused(saved: Saved):
    """A database may be restored to what it was, and go on to other contents."""
    with saved.database.write() as connection:
        connection.execute(
            changes.schema.chunks.delete().where(changes.schema.chunks.c.document_id == "d7")
        )
        row = require_collection(connection, "c")
        change_collection(connection, row, num_chunks=row.num_chunks - 1)
    replica = Replica(saved.database, saved.state)
    assert "d7" not in {chunk.document_id for chunk in replica.find(top_k=1000)}
    assert replica.snapshots.num_refused == 1


def test_refusal_names_no_content(saved: Saved, caplog: pytest.LogCaptureFixture):
    (saved.folder / "metadata.arrow").write_bytes(b"unique7 secret")
    assert saved.is_refused()
    (record,) = (one for one in caplog.records if "refused" in one.message)
    assert "secret" not in record.message
    assert "col_" in record.message


def test_another_shards_snapshot_is_refused(database: Database, tmp_path: Path):
    fill(database, 25)
    first, second = Shard(0, 2), Shard(1, 2)
    replica = Replica(database, tmp_path / "state", first)
    replica.find()
    replica.maintenance.round()
    (folder,) = (tmp_path / "state").glob("snapshots/*/0-of-2")
    folder.rename(folder.with_name("1-of-2"))
    other = Replica(database, tmp_path / "state", second)
    mine = {chunk.document_id for chunk in other.find(top_k=1000)}
    assert other.snapshots.num_refused == 1
    assert mine.isdisjoint({chunk.document_id for chunk in replica.find(top_k=1000)})


def test_removed_log_makes_a_snapshot_useless(saved: Saved, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("deployments.stores.writes.LOG_LENGTH", 2)
    for i in range(6):
        DocumentStore(saved.database).delete("c", f"d{i}")
    replica = Replica(saved.database, saved.state)
    found = {chunk.document_id for chunk in replica.find(top_k=1000)}
    assert found == {f"d{i}" for i in range(6, 25)}
    assert replica.snapshots.num_loaded == 0
