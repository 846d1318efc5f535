"""All that a database says, in values that two runs of the same operation share."""

from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, inspect, select

from deployments.config import RetrieverArgs
from deployments.errors import Unauthenticated
from deployments.stores import schema
from deployments.stores.database import Database
from deployments.stores.keys import KeyStore
from deployments.stores.search import Searcher
from deployments.stores.tokens import tokens
from deployments.types import SearchRequest
from tests.unit.stores.material import MODEL, vector

Contents = dict[str, Any]
WORDS = ("version1", "old1", "word7")


def contents(url: str, state: Path) -> Contents:
    """Return every collection with its documents and chunks, and every key, by a new connection."""
    database = Database(url)
    try:
        with database.read() as connection:
            tables = set(inspect(connection).get_table_names())
            if "collections" not in tables:
                return {}
            columns = {each["name"] for each in inspect(connection).get_columns("chunks")}
            if "bucket" not in columns:
                return {"revision": "0001"}
            stored = {"collections": _collections(connection), "keys": _keys(connection)}
        return stored | {"admin key works": _works(database, state)}
    finally:
        database.close()


def _collections(connection: Connection) -> Contents:
    table, found = schema.collections, {}
    columns = table.c["id", "name", "description", "embedding_model", "dim", "sequence"]
    for row in connection.execute(select(*columns, table.c.next_chunk_number)):
        found[row.name] = {
            "row": tuple(row)[2:],
            "documents": _documents(connection, row.id),
            "chunks": _chunks(connection, row.id),
            "removed": _removed(connection, row.id),
        }
    return found


def _documents(connection: Connection, collection_id: str) -> Contents:
    table = schema.documents
    columns = table.c["id", "title", "text", "metadata", "subject", "num_chunks", "content_hash"]
    rows = connection.execute(select(*columns).where(table.c.collection_id == collection_id))
    return {row.id: (*row[1:6], bytes(row.content_hash)) for row in rows}


def _chunks(connection: Connection, collection_id: str) -> Contents:
    table = schema.chunks
    columns = table.c["number", "document_id", "start", "end", "sequence", "bucket", "text"]
    rows = connection.execute(
        select(*columns, table.c.vector).where(table.c.collection_id == collection_id)
    )
    return {row.number: (*row[1:7], bytes(row.vector)) for row in rows}


def _removed(connection: Connection, collection_id: str) -> list[tuple[Any, ...]]:
    table = schema.removed_chunks
    rows = connection.execute(
        select(table.c.sequence, table.c.number).where(table.c.collection_id == collection_id)
    )
    return sorted(tuple(row) for row in rows)


def _keys(connection: Connection) -> list[tuple[Any, ...]]:
    columns = schema.keys.c["name", "is_admin", "revoked_at"]
    rows = connection.execute(select(*columns)).all()
    return sorted((row.name, row.is_admin, row.revoked_at is not None) for row in rows)


def _works(database: Database, state: Path) -> bool:
    """Return whether the state folder has an admin key that opens; one that does not is nothing."""
    path = state / "admin.key"
    if not path.exists():
        return False
    try:
        return KeyStore(database, state).verify(path.read_text().strip()).is_admin
    except Unauthenticated:
        return False


def check_search(url: str, stored: Contents) -> None:
    """Compare what a new searcher finds, dense and lexical, with every row in turn."""
    database = Database(url)
    try:
        searcher = Searcher(database, RetrieverArgs())
        for name, collection in stored.get("collections", {}).items():
            rows = collection["chunks"].values()
            _check_dense(searcher, name, rows)
            for word in WORDS:
                _check_word(searcher, name, rows, collection["documents"], word)
    finally:
        database.close()


def _check_dense(searcher: Searcher, collection: str, rows: Any) -> None:
    query = vector("query")
    request = SearchRequest(collection=collection, query="query", mode="dense", top_k=10_000)
    found = {(hit.document_id, hit.start): hit for hit in searcher.search(request, query, MODEL)}
    assert len(found) == len(rows)
    for document_id, start, end, _, _, text, raw in rows:
        hit = found[document_id, start]
        assert (hit.text, hit.end) == (text, end)
        expected = float(np.frombuffer(raw, "<f4") @ query)
        assert abs(hit.score - expected) < 1e-5


def _check_word(
    searcher: Searcher, collection: str, rows: Any, documents: Contents, word: str
) -> None:
    request = SearchRequest(collection=collection, query=word, mode="lexical", top_k=10_000)
    found = {(hit.document_id, hit.start) for hit in searcher.search(request, None, None)}
    assert found == {
        (document_id, start)
        for document_id, start, _, _, _, text, _ in rows
        if set(tokens(word)) <= set(tokens(f"{documents[document_id][0]}\n{text}"))
    }
