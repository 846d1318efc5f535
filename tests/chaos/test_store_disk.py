"""A full disk and a read-only folder while a store is open: writes are refused, reads go on."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deployments.config import RetrieverArgs
from deployments.errors import DocumentNotFound, StoreUnavailable
from deployments.stores.collections import CollectionStore
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.keys import KeyStore
from deployments.stores.migrations import migrate
from deployments.stores.search import Searcher
from deployments.types import Document, ScoredChunk, SearchRequest
from tests.faults import IS_COMPLETE
from tests.faults.disks import fill, read_only, tmpfs
from tests.unit.stores.material import MODEL, doc, put, settings, vector

SIZE_MIB = 64
FREE_KIB = range(0, 3000, 60) if IS_COMPLETE else (0, 8, 60, 400, 1500)
"""How much room there is when writing starts: from none to more than one write needs."""

MEBIBYTE = "many words " * 95_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with tmpfs(tmp_path / "disk", SIZE_MIB) as path:
        yield path


@pytest.fixture
def state(disk: Path) -> Path:
    return disk / "state"


@pytest.fixture
def database(state: Path) -> Iterator[Database]:
    url = f"sqlite:///{state / 'test.db'}"
    migrate(url)
    database = Database(url)
    put(database, [doc(f"old{i}", f"old text {i}") for i in range(20)])
    yield database
    database.close()


def found(searcher: Searcher, top_k: int = 999) -> dict[str, ScoredChunk]:
    request = SearchRequest(collection="c", query="text", mode="dense", top_k=top_k)
    return {chunk.document_id: chunk for chunk in searcher.search(request, vector("text"), MODEL)}


@pytest.mark.parametrize("free_kib", FREE_KIB)
def test_full_disk_refuses_writes_and_nothing_else(
    database: Database, disk: Path, state: Path, free_kib: int
):
    searcher, store = Searcher(database, RetrieverArgs()), DocumentStore(database)
    keys = KeyStore(database, state)
    _, bearer = keys.create("admin", is_admin=True)
    before = found(searcher)
    filler = fill(disk, leave_kib=free_kib)
    written = write_until_refused(database)
    assert written < 8, "the disk was not full"
    for name in [f"new{i}" for i in range(written)]:
        assert store.get("c", name).document.text == f"{name} {MEBIBYTE}"
    with pytest.raises(DocumentNotFound):
        store.get("c", f"new{written}")
    for replica in (searcher, Searcher(database, RetrieverArgs())):
        hits = found(replica, top_k=100_000)
        assert {name: hits[name] for name in before} == before
        assert set(hits) == {*before, *(f"new{i}" for i in range(written))}
    assert keys.verify(bearer).is_admin
    filler.unlink()
    assert put(database, [doc("after", "text")])[0].status == "created"
    assert "after" in found(searcher, top_k=100_000)
    assert_sound(state)


def write_until_refused(database: Database) -> int:
    """Return how many documents of a mebibyte were stored until the disk was said to be full."""
    for number in range(8):
        refusal = refusal_of(lambda name=f"new{number}": put(database, [big(name)], size=20_000))
        if refusal is not None:
            assert (refusal.message, refusal.retryable) == ("the database's disk is full", True)
            return number
    return 8


def big(name: str) -> Document:
    return doc(name, f"{name} {MEBIBYTE}")


def refusal_of(work: Callable[[], object]) -> StoreUnavailable | None:
    try:
        work()
    except StoreUnavailable as error:
        return error
    return None


def assert_sound(state: Path) -> None:
    connection = sqlite3.connect(state / "test.db")
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_full_disk_takes_deletes_again_once_there_is_room(database: Database, disk: Path):
    searcher, store = Searcher(database, RetrieverArgs()), DocumentStore(database)
    filler = fill(disk, leave_kib=0)
    deleted = set()
    for name in [f"old{number}" for number in range(20)]:
        if refusal_of(lambda name=name: store.delete("c", name)) is None:
            deleted.add(name)
    assert len(deleted) < 20, "the disk was not full"
    kept = set(found(searcher))
    assert kept == {f"old{number}" for number in range(20)} - deleted
    filler.unlink()
    for name in kept:
        store.delete("c", name)
    assert found(searcher) == {}


def test_read_only_folder_refuses_writes_and_serves_reads(database: Database, state: Path):
    searcher, store = Searcher(database, RetrieverArgs()), DocumentStore(database)
    before = found(searcher)
    other = sqlite3.connect(state / "test.db")  # another replica, whose connection stays
    other.execute("SELECT count(*) FROM documents").fetchone()
    database.close()
    writes: list[Callable[[], object]] = [
        lambda: put(database, [doc("new", "text")]),
        lambda: store.delete("c", "old1"),
        lambda: CollectionStore(database).create("other", settings()),
        lambda: KeyStore(database, state),
    ]
    with read_only(state):
        messages = [str(refusal_of(write)) for write in writes]
        assert messages[:3] == ["the database can only be read"] * 3
        assert "Read-only" in messages[3]
        assert found(searcher) == before
        assert found(Searcher(database, RetrieverArgs())) == before
        assert store.get("c", "old1").document.text == "old text 1"
        database.close()
    put(database, [doc("new", "text")])
    assert set(found(searcher)) == {*before, "new"}
    other.close()


def test_read_only_folder_is_refused_at_the_start(database: Database, state: Path):
    database.close()
    url = f"sqlite:///{state / 'test.db'}"
    with read_only(state):
        for start in (lambda: Database(url), lambda: migrate(url)):
            assert "Read-only" in str(refusal_of(start))
    migrate(url)
    assert len(found(Searcher(database, RetrieverArgs()))) == 20
