"""One write to a collection: documents and chunks, and the only code that writes the log."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, insert, select, update

from deployments.stores import schema
from deployments.stores.buckets import bucket_of
from deployments.stores.bulk import insert_many
from deployments.stores.checksums import DOCUMENT, checksum, chunk_checksum, row_checksum
from deployments.stores.collection_rows import change_collection
from deployments.stores.content import content_hash
from deployments.stores.ids import new_id, utc_now
from deployments.types import Document, EmbeddedText, IndexedDocument

LOG_LENGTH = 10_000
"""Transactions whose removals the log keeps; a replica that missed more loads anew."""

Old = tuple[bytes, int, str]
"""Of a stored document: its content hash, number of chunks, and when it was created."""

PAGE = 500
"""Ids per IN clause: SQLite and PostgreSQL both bound the parameters of a statement."""


class Write:
    """One transaction on one collection, whose row it holds: the numbers it hands out."""

    def __init__(self, connection: Connection, collection: Row[Any]) -> None:
        self._connection, self._collection = connection, collection
        self._collection_id: str = collection.id
        self._sequence: int = collection.sequence + 1
        self._log_start: int = max(collection.log_start, self._sequence - LOG_LENGTH)
        self._next_number: int = collection.next_chunk_number
        self._num_documents: int = collection.num_documents
        self._num_chunks: int = collection.num_chunks
        self._defaults: dict[str, Any] = collection.default_metadata
        self._time = utc_now()
        self._documents: list[dict[str, object]] = []
        self._chunks: list[dict[str, object]] = []
        self._has_changed = False

    def stored_hashes(self, document_ids: Sequence[str]) -> dict[str, Old]:
        """Return what is to be known of those documents that are stored."""
        table = schema.documents
        found: dict[str, Old] = {}
        for start in range(0, len(document_ids), PAGE):
            columns = table.c["id", "content_hash", "num_chunks", "created_at"]
            statement = select(*columns).where(
                table.c.collection_id == self._collection_id,
                table.c.id.in_(document_ids[start : start + PAGE]),
            )
            found |= {
                row[0]: (row[1], row[2], row[3]) for row in self._connection.execute(statement)
            }
        return found

    def put(
        self,
        document: Document,
        embedded: EmbeddedText,
        old: Old | None,
        times: tuple[str, str] | None = None,
    ) -> IndexedDocument:
        """Write one document and log its chunks, unless its content hash is the old one.

        `times` are when it was created and last changed, for one that is new here.
        """
        if self._defaults:
            metadata = self._defaults | document.metadata
            document = dataclasses.replace(document, metadata=metadata)
        digest = content_hash(document)
        if old is not None and old[0] == digest:
            return IndexedDocument(document.id, "unchanged", old[1])
        created_at, updated_at = times or (self._time, self._time)
        if old is not None:
            created_at, updated_at = old[2], self._time
        values: dict[str, object] = {
            "id": document.id,
            "title": document.title,
            "text": document.text,
            "metadata": document.metadata,
            "text_checksum": checksum(document.text, digest),
            "content_hash": digest,
            "subject": document.subject,
            "num_chunks": len(embedded.segments),
            "created_at": created_at,
            "updated_at": updated_at,
        }
        values["checksum"] = row_checksum(DOCUMENT, values)
        table = schema.documents
        if old is None:
            self._num_documents += 1
            self._documents.append({**values, "collection_id": self._collection_id})
        else:
            self._remove_chunks(document.id)
            where = is_document(self._collection_id, document.id)
            self._connection.execute(update(table).where(where).values(values))
        self._add_chunks(document, embedded)
        return IndexedDocument(
            document.id, "created" if old is None else "replaced", len(embedded.segments)
        )

    def remove(self, document_id: str) -> bool:
        """Delete a document and log the removal; return whether there was one."""
        self._remove_chunks(document_id)
        where = is_document(self._collection_id, document_id)
        result = self._connection.execute(delete(schema.documents).where(where))
        self._num_documents -= result.rowcount
        self._has_changed = self._has_changed or result.rowcount == 1
        return result.rowcount == 1

    def finish(self) -> None:
        """Write what is new and the collection's new sequence number, if anything changed."""
        if self._documents:
            insert_many(self._connection, schema.documents, self._documents)
        if self._chunks:
            insert_many(self._connection, schema.chunks, self._chunks)
        if not self._has_changed:
            return
        change_collection(
            self._connection,
            self._collection,
            sequence=self._sequence,
            next_chunk_number=self._next_number,
            log_start=self._log_start,
            num_documents=self._num_documents,
            num_chunks=self._num_chunks,
        )
        removed = schema.removed_chunks
        self._connection.execute(
            delete(removed).where(
                removed.c.collection_id == self._collection_id,
                removed.c.sequence <= self._log_start,
            )
        )

    def _add_chunks(self, document: Document, embedded: EmbeddedText) -> None:
        bucket = bucket_of(document.id)
        for segment, vector in zip(embedded.segments, embedded.vectors, strict=True):
            text, packed = (
                document.text[segment.start : segment.end],
                vector.astype("<f4").tobytes(),
            )
            number, chunk_id = self._next_number, new_id("chk")
            row = {
                "collection_id": self._collection_id,
                "number": number,
                "id": chunk_id,
                "document_id": document.id,
                "start": segment.start,
                "end": segment.end,
                "sequence": self._sequence,
                "bucket": bucket,
                "text": text,
                "vector": packed,
                "checksum": chunk_checksum(
                    number, chunk_id, document.id, segment.start, segment.end, text, packed
                ),
            }
            self._chunks.append(row)
            self._next_number += 1
            self._num_chunks += 1
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
        self._num_chunks -= len(rows)
        if rows:
            self._connection.execute(insert(schema.removed_chunks), rows)
            self._connection.execute(delete(chunks).where(where))


def is_document(collection_id: str, document_id: str) -> ColumnElement[bool]:
    """Return the condition on `documents` that holds for one."""
    documents = schema.documents
    return and_(documents.c.collection_id == collection_id, documents.c.id == document_id)


def has_chunks(connection: Connection, collection_id: str, document_id: str) -> bool:
    """Return whether there are chunks of a document: then it is stored, even if it is not found."""
    chunks = schema.chunks
    where = (chunks.c.collection_id == collection_id, chunks.c.document_id == document_id)
    return connection.execute(select(chunks.c.number).where(*where).limit(1)).first() is not None
