"""Documents and their chunks: the only code that writes the log."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, Row, and_, delete, insert, select, update

from deployments.errors import Conflict, DocumentNotFound, EngineFailed
from deployments.stores import schema
from deployments.stores.buckets import bucket_of
from deployments.stores.collections import find_collection, insert_collection, require_collection
from deployments.stores.content import (
    check_collection_name,
    check_documents,
    content_hash,
    is_document_id,
)
from deployments.stores.database import Database
from deployments.stores.ids import new_id, utc_now
from deployments.types import (
    CollectionSettings,
    Document,
    EmbeddedText,
    IndexedDocument,
    StoredDocument,
)

LOG_LENGTH = 10_000
"""Transactions whose removals the log keeps; a replica that missed more loads anew."""

PAGE = 500
"""Ids per IN clause: SQLite and PostgreSQL both bound the parameters of a statement."""


class DocumentStore:
    """Writes and reads documents; each write is one transaction with one sequence number."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def upsert(
        self,
        collection: str,
        embedding_model: str,
        documents: Sequence[Document],
        embedded: Sequence[EmbeddedText],
    ) -> list[IndexedDocument]:
        """Store documents by id, all or none; the collection is created when it is missing.

        A document whose text, title and metadata are stored already costs nothing. When none
        changes, the sequence stays.

        Args:
            collection: the collection's name.
            embedding_model: which model made the vectors; a collection holds those of one model.
            documents: no id may come twice.
            embedded: for each document its segments and their vectors.

        Raises:
            InvalidRequest: a name, id, text or metadata cannot be stored, or an id comes twice.
            Conflict: the collection holds another model's vectors.
            StoreUnavailable: the database did not answer; safe to retry.
        """
        check_collection_name(collection)
        check_documents(documents)
        if not documents:
            return []
        dim = _check_embedded(documents, embedded)
        with self._database.write() as connection:
            if find_collection(connection, collection, lock=True) is None:
                settings = CollectionSettings(embedding_model=embedding_model, dim=dim)
                insert_collection(connection, collection, settings)
            row = require_collection(connection, collection, lock=True)
            if (row.embedding_model, row.dim) != (embedding_model, dim):
                raise Conflict(f"collection {collection!r} holds another embedding model's vectors")
            write = _Write(connection, row)
            hashes = write.stored_hashes([document.id for document in documents])
            indexed = [
                write.put(document, vectors, hashes.get(document.id))
                for document, vectors in zip(documents, embedded, strict=True)
            ]
            write.finish()
            return indexed

    def get(self, collection: str, document_id: str) -> StoredDocument:
        """Return a document as it was given.

        Raises:
            CollectionNotFound: no collection has this name.
            DocumentNotFound: the collection holds no document with this id.
        """
        with self._database.read() as connection:
            collection_id = require_collection(connection, collection).id
            row = None
            if is_document_id(document_id):
                statement = select(schema.documents).where(_is(collection_id, document_id))
                row = connection.execute(statement).one_or_none()
        if row is None:
            raise DocumentNotFound("the collection holds no document with this id")
        document = Document(
            id=row.id, text=row.text, title=row.title, metadata=row.metadata, subject=row.subject
        )
        return StoredDocument(document, row.num_chunks, row.created_at, row.updated_at)

    def delete(self, collection: str, document_id: str) -> None:
        """Delete a document; searches that start after the return no longer find it.

        Raises:
            CollectionNotFound: no collection has this name.
            DocumentNotFound: the collection holds no document with this id.
        """
        with self._database.write() as connection:
            write = _Write(connection, require_collection(connection, collection, lock=True))
            if not is_document_id(document_id) or not write.remove(document_id):
                raise DocumentNotFound("the collection holds no document with this id")
            write.finish()


def _check_embedded(documents: Sequence[Document], embedded: Sequence[EmbeddedText]) -> int:
    """Return the vectors' length; raises EngineFailed when they are not what an engine owes."""
    dims = {vectors.vectors.shape[-1] for vectors in embedded}
    pairs = zip(documents, embedded, strict=False)
    is_whole = len(embedded) == len(documents) and len(dims) == 1
    if not is_whole or not all(_fits(document, vectors) for document, vectors in pairs):
        raise EngineFailed("the embedding engine returned unusable vectors")
    return int(dims.pop())


def _fits(document: Document, embedded: EmbeddedText) -> bool:
    vectors, segments = embedded.vectors, embedded.segments
    is_matrix = vectors.ndim == 2 and len(segments) == len(vectors)
    spans = (0 <= each.start <= each.end <= len(document.text) for each in segments)
    return is_matrix and bool(np.isfinite(vectors).all()) and all(spans)


def _is(collection_id: str, document_id: str) -> ColumnElement[bool]:
    documents = schema.documents
    return and_(documents.c.collection_id == collection_id, documents.c.id == document_id)


class _Write:
    """One transaction on one collection, whose row it holds: the numbers it hands out."""

    def __init__(self, connection: Connection, collection: Row[Any]) -> None:
        self._connection = connection
        self._collection_id: str = collection.id
        self._sequence: int = collection.sequence + 1
        self._log_start: int = max(collection.log_start, self._sequence - LOG_LENGTH)
        self._next_number: int = collection.next_chunk_number
        self._time = utc_now()
        self._chunks: list[dict[str, object]] = []
        self._has_changed = False

    def stored_hashes(self, document_ids: Sequence[str]) -> dict[str, tuple[bytes, int]]:
        """Return content hash and number of chunks of those documents that are stored."""
        table = schema.documents
        found: dict[str, tuple[bytes, int]] = {}
        for start in range(0, len(document_ids), PAGE):
            statement = select(table.c.id, table.c.content_hash, table.c.num_chunks).where(
                table.c.collection_id == self._collection_id,
                table.c.id.in_(document_ids[start : start + PAGE]),
            )
            found |= {row[0]: (row[1], row[2]) for row in self._connection.execute(statement)}
        return found

    def put(
        self, document: Document, embedded: EmbeddedText, old: tuple[bytes, int] | None
    ) -> IndexedDocument:
        """Write one document and log its chunks, unless its content hash is the old one."""
        digest = content_hash(document)
        if old is not None and old[0] == digest:
            return IndexedDocument(document.id, "unchanged", old[1])
        values = {
            "title": document.title,
            "text": document.text,
            "metadata": document.metadata,
            "content_hash": digest,
            "subject": document.subject,
            "num_chunks": len(embedded.segments),
            "updated_at": self._time,
        }
        table = schema.documents
        if old is None:
            values |= {"id": document.id, "created_at": self._time}
            values |= {"collection_id": self._collection_id}
            self._connection.execute(insert(table).values(values))
        else:
            self._remove_chunks(document.id)
            where = _is(self._collection_id, document.id)
            self._connection.execute(update(table).where(where).values(values))
        self._add_chunks(document, embedded)
        return IndexedDocument(
            document.id, "created" if old is None else "replaced", len(embedded.segments)
        )

    def remove(self, document_id: str) -> bool:
        """Delete a document and log the removal; return whether there was one."""
        self._remove_chunks(document_id)
        where = _is(self._collection_id, document_id)
        result = self._connection.execute(delete(schema.documents).where(where))
        self._has_changed = self._has_changed or result.rowcount == 1
        return result.rowcount == 1

    def finish(self) -> None:
        """Write the new chunks and the collection's new sequence number, if anything changed."""
        if self._chunks:
            self._connection.execute(insert(schema.chunks), self._chunks)
        if not self._has_changed:
            return
        collections, removed = schema.collections, schema.removed_chunks
        self._connection.execute(
            update(collections)
            .where(collections.c.id == self._collection_id)
            .values(
                sequence=self._sequence,
                next_chunk_number=self._next_number,
                log_start=self._log_start,
            )
        )
        self._connection.execute(
            delete(removed).where(
                removed.c.collection_id == self._collection_id,
                removed.c.sequence <= self._log_start,
            )
        )

    def _add_chunks(self, document: Document, embedded: EmbeddedText) -> None:
        bucket = bucket_of(document.id)
        for segment, vector in zip(embedded.segments, embedded.vectors, strict=True):
            row = {
                "collection_id": self._collection_id,
                "number": self._next_number,
                "id": new_id("chk"),
                "document_id": document.id,
                "start": segment.start,
                "end": segment.end,
                "sequence": self._sequence,
                "bucket": bucket,
                "text": document.text[segment.start : segment.end],
                "vector": vector.astype("<f4").tobytes(),
            }
            self._chunks.append(row)
            self._next_number += 1
        self._has_changed = True

    def _remove_chunks(self, document_id: str) -> None:
        chunks = schema.chunks
        where = and_(
            chunks.c.collection_id == self._collection_id, chunks.c.document_id == document_id
        )
        numbers = self._connection.scalars(select(chunks.c.number).where(where)).all()
        rows = [
            {"collection_id": self._collection_id, "sequence": self._sequence, "number": number}
            for number in numbers
        ]
        if rows:
            self._connection.execute(insert(schema.removed_chunks), rows)
            self._connection.execute(delete(chunks).where(where))
