"""Erasure in the database: what goes, what stays, what the receipt says, what may come back."""

from dataclasses import replace
from pathlib import Path

import pytest

from deployments.config import RetrieverArgs
from deployments.errors import CollectionNotFound, DocumentNotFound, NotFound
from deployments.stores import schema
from deployments.stores.changes import head
from deployments.stores.collections import CollectionStore
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.erasures import ErasureStore
from deployments.stores.ids import utc_now
from deployments.stores.search import Searcher
from deployments.stores.suppressions import Suppressions
from deployments.types import Condition, ErasureScope, SearchRequest
from tests.unit.stores.material import MODEL, doc, put, vector

PEPPER = bytes(32)
SECRET = "xyzzyplugh"


@pytest.fixture
def store(database: Database) -> ErasureStore:
    return ErasureStore(database, PEPPER)


def scope(**fields: object) -> ErasureScope:
    return ErasureScope(**({"tenant": "default", "collection": "c"} | fields))  # type: ignore[arg-type]


def put_people(database: Database) -> None:
    """Store two documents of Ann's and one of Bob's in two collections."""
    for collection, ids in (("c", ("a1", "b1")), ("d", ("a2",))):
        documents = [
            replace(doc(one, f"text of {one}"), subject="ann" if one[0] == "a" else "bob")
            for one in ids
        ]
        put(database, documents, collection)


def stored(database: Database, collection: str = "c") -> set[str]:
    request = SearchRequest(collection=collection, query="text", mode="dense", top_k=1000)
    found = Searcher(database, RetrieverArgs()).search(request, vector("text"), MODEL)
    return {chunk.document_id for chunk in found}


def test_documents_are_erased_and_others_stay(store: ErasureStore, database: Database):
    put(database, [doc("a", "x" * 50), doc("b"), doc("c")])
    erasure = store.erase(scope(document_ids=("a", "c", "unknown", "a")))
    assert stored(database) == {"b"}
    [part] = erasure.parts
    assert (erasure.kind, part.collection, part.num_documents, part.num_chunks) == (
        "documents",
        "c",
        2,
        4,
    )
    with pytest.raises(DocumentNotFound):
        DocumentStore(database).get("c", "a")


def test_filter_erases_what_a_search_with_it_finds(store: ErasureStore, database: Database):
    put(database, [doc(f"d{i}", n=i, odd=i % 2 == 1) for i in range(20)])
    where = Condition("odd", "eq", True)
    request = SearchRequest(collection="c", query="text", mode="dense", top_k=99, filter=where)
    found = Searcher(database, RetrieverArgs()).search(request, vector("text"), MODEL)
    erasure = store.erase(scope(filter=where))
    assert erasure.parts[0].num_documents == len(found) == 10
    assert stored(database) == {f"d{i}" for i in range(0, 20, 2)}


def test_filter_sees_ids_and_times(store: ErasureStore, database: Database):
    put(database, [doc("keep"), doc("gone")])
    store.erase(scope(filter=Condition("_id", "starts_with", "go")))
    assert stored(database) == {"keep"}


def test_collection_is_erased_whole(store: ErasureStore, database: Database):
    put(database, [doc("a"), doc("b", "y" * 50)])
    erasure = store.erase(scope())
    assert (erasure.kind, erasure.parts[0].num_documents, erasure.parts[0].num_chunks) == (
        "collection",
        2,
        4,
    )
    with pytest.raises(CollectionNotFound):
        CollectionStore(database).get("c")


def test_subject_is_erased_from_every_collection(store: ErasureStore, database: Database):
    put_people(database)
    erasure = store.erase(scope(collection=None, subject="ann"))
    assert [part.collection for part in erasure.parts] == ["c", "d"]
    assert stored(database) == {"b1"}
    assert stored(database, "d") == set()
    assert "ann" not in repr(erasure)


def test_subject_of_one_collection(store: ErasureStore, database: Database):
    put_people(database)
    store.erase(scope(collection="d", subject="ann"))
    assert stored(database) == {"a1", "b1"}


def test_subject_of_another_tenant_stays(store: ErasureStore, database: Database):
    put_people(database)
    erasure = store.erase(scope(tenant="other", collection=None, subject="ann"))
    assert erasure.parts == ()
    assert stored(database) == {"a1", "b1"}


def test_missing_collection_is_said(store: ErasureStore):
    with pytest.raises(CollectionNotFound):
        store.erase(scope())
    assert store.incomplete() == []


def test_erasure_raises_the_epoch_even_when_nothing_was_left(
    store: ErasureStore, database: Database
):
    put(database, [doc("a"), doc("b")])
    DocumentStore(database).delete("c", "a")
    before = _epoch(database)
    assert store.erase(scope(document_ids=("a",))).parts[0].num_documents == 0
    assert _epoch(database) == before + 1


def _epoch(database: Database) -> int:
    with database.read() as connection:
        return head(connection.execute, "c").epoch


def test_receipt_is_complete_when_every_place_is_clean(store: ErasureStore, database: Database):
    put(database, [doc("a")])
    erasure = store.erase(scope(document_ids=("a",)))
    assert store.incomplete() == [erasure] == [store.get("default", erasure.id)]
    first = store.mark(erasure.id, "database")
    assert first.completed_at is None
    assert store.mark(erasure.id, "database").places == first.places, "the first time counts"
    store.mark(erasure.id, "indexes")
    assert store.mark(erasure.id, "snapshots").completed_at is None
    assert store.mark(erasure.id, "caches").completed_at is None
    done = store.mark(erasure.id, "tasks")
    assert done.completed_at == max(time for time in done.places.values() if time)
    assert done.completed_at >= done.requested_at
    assert store.incomplete() == []


def test_receipt_from_before_there_were_tasks_reads_as_it_was(
    store: ErasureStore, database: Database
):
    put(database, [doc("a"), doc("b")])
    done, begun = (store.erase(scope(document_ids=(one,))).id for one in ("a", "b"))
    places = dict.fromkeys(("database", "indexes", "snapshots"), "2026-01-01T00:00:00.000000Z")
    table = schema.erasures
    with database.write() as connection:
        old = table.update().values(places={**places, "caches": None})
        connection.execute(old.where(table.c.id == begun))
        old = table.update().values(places=places | {"caches": utc_now()}, completed_at=utc_now())
        connection.execute(old.where(table.c.id == done))
    assert [one.id for one in store.incomplete()] == [begun]
    assert store.get("default", done).completed_at
    assert store.mark(begun, "caches").completed_at
    assert "tasks" not in store.get("default", begun).places


def test_receipt_is_its_tenants_alone(store: ErasureStore, database: Database):
    put(database, [doc("a")])
    erasure = store.erase(scope())
    for tenant, erasure_id in (("other", erasure.id), ("default", "era_unknown")):
        with pytest.raises(NotFound):
            store.get(tenant, erasure_id)


@pytest.mark.parametrize(
    "fields",
    [{"document_ids": ("a1",)}, {"collection": None, "subject": "ann"}, {}],
    ids=["document", "subject", "collection"],
)
def test_what_comes_back_from_a_backup_is_deleted_again(
    store: ErasureStore, database: Database, fields: dict
):
    put_people(database)
    backup = _rows(database)
    store.erase(scope(**fields))
    _bring_back(database, backup)
    with database.write() as connection:
        num_deleted = Suppressions(PEPPER).reapply(connection)
    assert num_deleted == {"document_ids": 1, "subject": 2}.get(next(reversed(fields), ""), 2)
    with database.read() as connection:
        left = connection.exec_driver_sql("SELECT id FROM documents").scalars().all()
    expected = {"document_ids": {"b1", "a2"}, "subject": {"b1"}}
    assert set(left) == expected.get(next(reversed(fields), ""), {"a2"})


def test_what_is_stored_after_an_erasure_stays(store: ErasureStore, database: Database):
    put(database, [doc("a")])
    store.erase(scope(document_ids=("a",)))
    put(database, [doc("a", "new text")])
    with database.write() as connection:
        assert Suppressions(PEPPER).reapply(connection) == 0
    assert stored(database) == {"a"}


def _rows(database: Database) -> dict[str, list]:
    tables = (schema.collections, schema.documents, schema.chunks)
    with database.read() as connection:
        return {t.name: list(connection.execute(t.select()).mappings()) for t in tables}


def _bring_back(database: Database, rows: dict[str, list]) -> None:
    tables = (schema.collections, schema.documents, schema.chunks)
    with database.write() as connection:
        for table in (*reversed(tables), schema.removed_chunks):
            if table.name == "collections":
                connection.execute(schema.removed_chunks.delete())
            connection.execute(table.delete())
        for table in tables:
            connection.execute(table.insert(), [dict(row) for row in rows[table.name]])


def test_vacuum_leaves_nothing_in_the_files(
    store: ErasureStore, database: Database, database_url: str
):
    if not database.is_sqlite:
        pytest.skip("the files are the server's")
    texts = [f"{SECRET} {i} " * 40 for i in range(50)]
    put(database, [doc(f"d{i}", text, title=SECRET, note=SECRET) for i, text in enumerate(texts)])
    put(database, [doc(f"keep{i}", "innocent " * 60) for i in range(50)])
    vectors = [vector(f"{SECRET} {i} " * 2)[:4].tobytes() for i in range(50)]
    folder = Path(database_url.removeprefix("sqlite:///")).parent
    assert _found(folder, SECRET.encode())
    store.erase(scope(document_ids=tuple(f"d{i}" for i in range(50))))
    database.vacuum()
    assert not _found(folder, SECRET.encode())
    assert not any(_found(folder, one) for one in vectors)
    assert len(stored(database)) == 50


def _found(folder: Path, needle: bytes) -> list[str]:
    return [path.name for path in folder.iterdir() if needle in path.read_bytes()]


def test_vacuum_while_others_read_and_write(database: Database):
    put(database, [doc(f"d{i}", f"text {i}") for i in range(50)])
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM documents").scalar_one() == 50
    database.vacuum()
    put(database, [doc("after")])
    database.vacuum()
    assert len(stored(database)) == 51
