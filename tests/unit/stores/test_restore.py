"""A restore brings every table back, and nothing that was erased since."""

from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import Connection, insert, select

from deployments.config import RetrieverArgs
from deployments.errors import Conflict
from deployments.stores import schema
from deployments.stores.backup import PEPPER, revision_of
from deployments.stores.collection_rows import change_collection
from deployments.stores.collections import CollectionStore, require_collection
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.erasures import ErasureStore
from deployments.stores.folders import LocalFolder
from deployments.stores.keys import KeyStore
from deployments.stores.migrations import alembic_config
from deployments.stores.restore import After, read_pepper
from deployments.stores.search import Searcher
from deployments.stores.suppressions import Suppressions
from deployments.types import ErasureScope, SearchRequest
from tests.unit.stores.backups import restored, rows, written
from tests.unit.stores.material import MODEL, doc, put, vector


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
