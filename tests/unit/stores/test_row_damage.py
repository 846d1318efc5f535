"""One changed value in one row, in a file that SQLite finds sound: refused wherever it shows."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import JSON, text

from deployments.config import RetrieverArgs
from deployments.errors import DatabaseDamaged, DocumentNotFound
from deployments.stores import schema
from deployments.stores.buckets import Shard
from deployments.stores.changes import heads
from deployments.stores.checksums import COLLECTION, DOCUMENT, KEY
from deployments.stores.collections import CollectionStore
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.erasures import ErasureStore
from deployments.stores.exports import Export
from deployments.stores.keys import KeyStore
from deployments.stores.migrations import alembic_config, migrate
from deployments.stores.search import Searcher
from deployments.types import CollectionChanges, Condition, ErasureScope, SearchRequest
from tests.unit.stores.material import ONLY_SQLITE, doc, put

REQUEST = SearchRequest(collection="c", query="text", mode="lexical", top_k=1000)
LONG = "some text " * 10


@pytest.fixture
def filled(database: Database) -> Database:
    put(database, [doc("a", LONG, year=1), doc("b", LONG), doc("c", LONG)])
    return database


def change(database: Database, statement: str) -> None:
    """Write behind the stores' back, as damage does."""
    with database.write() as connection:
        assert connection.execute(text(statement)).rowcount > 0


def other(value: Any) -> str:
    """Return an expression that differs from a column's value and fits its type."""
    return {int: "{0} + 1", bool: "NOT {0}"}.get(value, "{0} || 'x'")


def expression(table: Any, name: str, *, is_sqlite: bool) -> str:
    kind = table.c[name].type.python_type
    if isinstance(table.c[name].type, JSON):
        return """'{"kind": "flat"}'""" if is_sqlite else """CAST('{"kind": "flat"}' AS JSON)"""
    if kind is bytes:
        return "zeroblob(32)" if is_sqlite else r"'\x00'::bytea"
    return other(kind).format(name)


def find(database: Database, shard: Shard | None = None) -> list[str]:
    searcher = Searcher(database, RetrieverArgs(), *([] if shard is None else [shard]))
    return [one.document_id for one in searcher.search(REQUEST, None, None)]


def test_checksums_cover_every_column_but_their_own():
    assert {*COLLECTION, "checksum"} == set(schema.collections.c.keys())
    assert {*KEY, "checksum"} == set(schema.keys.c.keys())
    others = {"collection_id", "content_hash", "text", "text_checksum", "checksum"}
    assert {*DOCUMENT, *others} == set(schema.documents.c.keys())


@pytest.mark.parametrize("name", [name for name in COLLECTION if name not in {"tenant", "name"}])
def test_changed_collection_is_refused(filled: Database, name: str):
    what = expression(schema.collections, name, is_sqlite=filled.is_sqlite)
    with filled.migration() as connection:
        connection.execute(text("DELETE FROM documents WHERE false"))
    change_unbound(filled, f"UPDATE collections SET {name} = {what}")
    store = CollectionStore(filled)
    asks: list[Callable[[], object]] = [
        lambda: store.get("c"),
        store.list,
        lambda: store.space("c"),
        lambda: store.update("c", CollectionChanges(description="new")),
        lambda: put(filled, [doc("new")]),
        lambda: DocumentStore(filled).get("c", "a"),
        lambda: find(filled),
        lambda: list(Export(filled, "c").pieces()),
    ]
    for ask in asks:
        with pytest.raises(DatabaseDamaged):
            ask()
    assert heads(filled.rows) == {}


def change_unbound(database: Database, statement: str) -> None:
    """Change what other rows may refer to."""
    if not database.is_sqlite:
        with database.write() as connection:
            connection.execute(text("SET session_replication_role = replica"))
            assert connection.execute(text(statement)).rowcount > 0
            connection.execute(text("SET session_replication_role = DEFAULT"))
        return
    with database.migration() as connection:
        assert connection.execute(text(statement)).rowcount > 0


@pytest.mark.parametrize("name", [name for name in KEY if name != "id"])
def test_changed_key_opens_nothing(database: Database, tmp_path: Path, name: str):
    store = KeyStore(database, tmp_path)
    key, bearer = store.create("key")
    store.create("admin", is_admin=True)
    what = expression(schema.keys, name, is_sqlite=database.is_sqlite)
    what = "'2026'" if name in ("revoked_at", "expires_at") else what
    change(database, f"UPDATE keys SET {name} = {what} WHERE id = '{key.id}'")
    for ask in (lambda: store.verify(bearer), store.list, lambda: store.revoke(key.id)):
        with pytest.raises(DatabaseDamaged):
            ask()


def test_revoked_key_does_not_work_again_by_damage(database: Database, tmp_path: Path):
    store = KeyStore(database, tmp_path)
    store.create("admin", is_admin=True)
    key, bearer = store.create("key")
    store.revoke(key.id)
    change(database, f"UPDATE keys SET revoked_at = NULL WHERE id = '{key.id}'")
    with pytest.raises(DatabaseDamaged):
        store.verify(bearer)


@pytest.mark.parametrize("name", [name for name in DOCUMENT if name != "id"])
def test_changed_document_is_refused(filled: Database, name: str):
    what = expression(schema.documents, name, is_sqlite=filled.is_sqlite)
    what = "'somebody'" if name == "subject" else what
    change(filled, f"UPDATE documents SET {name} = {what} WHERE id = 'a'")
    erasures = ErasureStore(filled, b"p" * 32)
    scope = ErasureScope(tenant="default", collection="c", filter=Condition("year", "eq", 1))
    asks: list[Callable[[], object]] = [
        lambda: DocumentStore(filled).get("c", "a"),
        lambda: DocumentStore(filled).page("c", 9),
        lambda: find(filled),
        lambda: list(Export(filled, "c").pieces()),
        lambda: erasures.erase(scope),
    ]
    for ask in asks:
        with pytest.raises(DatabaseDamaged):
            ask()
    assert DocumentStore(filled).get("c", "b").document.text == LONG


@ONLY_SQLITE
@pytest.mark.parametrize("table", ["collections", "documents"])
def test_metadata_that_is_no_json_is_refused(filled: Database, table: str):
    column = {"collections": "default_metadata", "documents": "metadata"}[table]
    for value in ("'{'", "'[]'", "'3'"):
        change(filled, f"UPDATE {table} SET {column} = {value}")
        scope = ErasureScope(tenant="default", collection="c", filter=Condition("x", "eq", 1))
        asks: list[Callable[[], object]] = [
            lambda: DocumentStore(filled).page("c", 9),
            lambda: find(filled),
            lambda scope=scope: ErasureStore(filled, b"p" * 32).erase(scope),
        ]
        for ask in asks:
            with pytest.raises(DatabaseDamaged):
                ask()


@pytest.mark.parametrize("shard", [None, Shard(0, 1)])
def test_hidden_document_is_noticed_when_all_is_loaded(filled: Database, shard: Shard | None):
    change(filled, "DELETE FROM chunks WHERE document_id = 'b'")
    with pytest.raises(DatabaseDamaged):
        find(filled, shard)


def test_hidden_chunk_is_noticed_by_a_shard_too(filled: Database):
    change(filled, "DELETE FROM chunks WHERE document_id = 'b' AND number = 6")
    refused = 0
    for index in range(2):
        try:
            assert "b" not in find(filled, Shard(index, 2))
        except DatabaseDamaged:
            refused += 1
    assert refused == 1


def test_hidden_removal_is_noticed_and_the_log_is_read_anew(filled: Database):
    searcher = Searcher(filled, RetrieverArgs())
    searcher.search(REQUEST, None, None)
    DocumentStore(filled).delete("c", "b")
    change(filled, "DELETE FROM removed_chunks WHERE number = 5")
    found = [one.document_id for one in searcher.search(REQUEST, None, None)]
    assert set(found) == {"a", "c"}


def test_hidden_document_is_not_said_to_be_absent(filled: Database):
    change_unbound(filled, "DELETE FROM documents WHERE id = 'b'")
    with pytest.raises(DatabaseDamaged):
        DocumentStore(filled).get("c", "b")
    with pytest.raises(DatabaseDamaged):
        DocumentStore(filled).page("c", 3)
    with pytest.raises(DocumentNotFound):
        DocumentStore(filled).get("c", "never stored")


def test_rows_of_the_third_revision_get_true_checksums(
    filled: Database, database_url: str, tmp_path: Path
):
    _, bearer = KeyStore(filled, tmp_path).create("key", is_admin=True)
    info = CollectionStore(filled).get("c")
    with filled.migration() as connection:
        command.downgrade(alembic_config(connection), "0003")
    change(filled, "UPDATE documents SET title = 'damaged' WHERE id = 'b'")
    migrate(database_url)
    assert KeyStore(filled, tmp_path).verify(bearer).is_admin
    assert CollectionStore(filled).get("c") == info
    assert (info.num_documents, info.num_chunks) == (3, 15)
    assert DocumentStore(filled).get("c", "a").document.metadata == {"year": 1}
    with pytest.raises(DatabaseDamaged):
        DocumentStore(filled).get("c", "b")


def test_text_that_is_no_text_is_damage(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'test.db'}"
    migrate(url)
    database = Database(url)
    put(database, [doc("a")])
    connection = sqlite3.connect(tmp_path / "test.db")
    connection.execute("UPDATE documents SET title = CAST(x'ff' AS TEXT)")
    connection.commit()
    connection.close()
    with pytest.raises(DatabaseDamaged):
        DocumentStore(database).get("c", "a")
    database.close()
