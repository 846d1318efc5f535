import numpy as np
import pytest

from deployments.stores import changes as module
from deployments.stores import writes
from deployments.stores.changes import changes_since, head
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from tests.unit.stores.material import doc, embed, put


def read(database: Database, sequence: int) -> tuple[list[int], list[str], np.ndarray, list[int]]:
    with database.read() as connection:
        batches = list(changes_since(connection, head(connection.execute, "c"), sequence))
    numbers = [n for batch in batches for n in batch.numbers.tolist()]
    texts = [text for batch in batches for text in batch.texts]
    removed = [n for batch in batches for n in batch.removed.tolist()]
    rows = [batch.vectors for batch in batches if len(batch.vectors)]
    assert all(max(len(b.numbers), len(b.removed)) <= module.MAX_ROWS for b in batches)
    return numbers, texts, np.concatenate(rows) if rows else np.empty((0, 8)), removed


def test_changes_give_chunks_with_vectors_exactly(database: Database):
    put(database, [doc("1", "x" * 20 + "y" * 5, title="T")])
    numbers, texts, vectors, removed = read(database, 0)
    assert (numbers, texts, removed) == ([0, 1], ["T\n" + "x" * 20, "T\nyyyyy"], [])
    assert np.array_equal(vectors, embed("x" * 20 + "y" * 5).vectors)


def test_changes_after_the_newest_are_none(database: Database):
    put(database, [doc("1")])
    assert read(database, 1)[0] == []


def test_replacing_adds_and_removes(database: Database):
    put(database, [doc("1", "old"), doc("2", "kept")])
    put(database, [doc("1", "new")])
    numbers, texts, _, removed = read(database, 1)
    assert (numbers, texts, removed) == ([2], ["\nnew"], [0])


def test_chunk_that_came_and_went_is_only_removed(database: Database):
    put(database, [doc("0")])
    put(database, [doc("1", "short-lived")])
    DocumentStore(database).delete("c", "1")
    numbers, _, _, removed = read(database, 1)
    assert (numbers, removed) == ([], [1])


def test_empty_follower_reads_no_removals(database: Database):
    put(database, [doc("1", "old")])
    put(database, [doc("1", "new")])
    assert read(database, 0)[3] == []


def test_batches_are_bounded_and_whole(database: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_ROWS", 3)
    put(database, [doc("0")])
    put(database, [doc(str(i), "a" * 50) for i in range(1, 6)])
    put(database, [doc(str(i), "b" * 50) for i in range(1, 6)])
    numbers, texts, vectors, removed = read(database, 1)
    assert numbers == list(range(16, 31))
    assert len(texts) == len(vectors) == 15
    assert removed == list(range(1, 16))


def test_log_of_removals_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writes, "LOG_LENGTH", 3)
    for version in range(10):
        put(database, [doc("1", f"version {version}")])
    with database.read() as connection:
        now = head(connection.execute, "c")
    assert (now.sequence, now.log_start) == (10, 7)
    assert read(database, 7)[3] == [6, 7, 8]
    with pytest.raises(AssertionError):
        read(database, 6)
