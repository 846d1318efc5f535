"""Documents of a collection: stored, listed, read and deleted; ``writes.py`` writes the log."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, Select, func, select

from deployments.errors import Conflict, DocumentNotFound, EngineFailed
from deployments.stores import schema
from deployments.stores.checksums import DOCUMENT
from deployments.stores.collections import (
    find_collection,
    insert_collection,
    not_found,
    require_collection,
)
from deployments.stores.content import check_documents, is_document_id
from deployments.stores.damage import check_document, check_text, damaged
from deployments.stores.database import Database
from deployments.stores.paths import check_path
from deployments.stores.writes import Write, has_chunks, is_document
from deployments.types import (
    CollectionSettings,
    Document,
    DocumentInfo,
    EmbeddedText,
    IndexedDocument,
    Metric,
    StoredDocument,
)


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
        metric: Metric | None = None,
        may_create: bool = True,
    ) -> list[IndexedDocument]:
        """Store documents by id, all or none; a missing collection is created with defaults.

        Where a document's metadata does not say, it has the collection's defaults of now. One
        whose text, title, subject and metadata with these are stored already costs nothing. When
        none changes, the sequence stays.

        Args:
            collection: the collection's path.
            embedding_model: which model made the vectors; a collection holds those of one model.
            documents: no id may come twice.
            embedded: for each document its segments and their vectors.
            metric: what the vectors are made for; None: for any.
            may_create: False where the collection is known to exist.

        Raises:
            InvalidRequest: a name, id, text or metadata cannot be stored, or an id comes twice.
            Conflict: the collection holds another model's vectors, or has another metric.
            CollectionNotFound: it is missing, and may not be created.
            StoreUnavailable: the database did not answer; safe to retry.
        """
        check_path(collection)
        check_documents(documents)
        if not documents:
            return []
        dim = _check_embedded(documents, embedded)
        with self._database.write() as connection:
            if find_collection(connection, collection, lock=True) is None:
                if not may_create:
                    raise not_found(collection)
                settings = CollectionSettings(embedding_model=embedding_model, dim=dim)
                insert_collection(connection, collection, settings)
            row = require_collection(connection, collection, lock=True)
            if (row.embedding_model, row.dim) != (embedding_model, dim):
                raise Conflict(f"collection {collection!r} holds another embedding model's vectors")
            if metric not in {None, row.metric}:
                raise Conflict(f"collection {collection!r} has another metric")
            write = Write(connection, row)
            hashes = write.stored_hashes([document.id for document in documents])
            indexed = [
                write.put(document, vectors, hashes.get(document.id))
                for document, vectors in zip(documents, embedded, strict=True)
            ]
            write.finish()
            return indexed

    def page(self, collection: str, limit: int, after: str = "") -> list[DocumentInfo]:
        """Return up to `limit` documents by id, those with an id greater than `after`.

        Raises:
            CollectionNotFound: no collection has this path.
            DatabaseDamaged: a document is damaged, or at the end, one was not among the pages.
        """
        table = schema.documents
        columns = table.c["id", "title", "metadata", "subject", "num_chunks"]
        statement = select(*columns, *table.c["created_at", "updated_at", "checksum"])
        with self._database.read() as connection:
            row = require_collection(connection, collection)
            own = table.c.collection_id == row.id
            statement = statement.where(own, table.c.id > after)
            found = _rows(connection, statement.order_by(table.c.id).limit(limit))
            if len(found) < limit:  # the end: the same index must have shown all
                shown = select(func.count()).select_from(table).where(own, table.c.id > "")
                if connection.execute(shown).scalar_one() != row.num_documents:
                    raise damaged("collection's index")
        return [DocumentInfo(**{name: row._mapping[name] for name in DOCUMENT}) for row in found]

    def get(self, collection: str, document_id: str) -> StoredDocument:
        """Return a document as it is stored: its metadata holds the defaults of its time.

        Raises:
            CollectionNotFound: no collection has this path.
            DocumentNotFound: the collection holds no document with this id.
            DatabaseDamaged: the document is damaged.
            StoreUnavailable: the database did not answer; safe to retry.
        """
        with self._database.read() as connection:
            collection_id = require_collection(connection, collection).id
            row = None
            if is_document_id(document_id):
                statement = select(schema.documents).where(is_document(collection_id, document_id))
                row = next(iter(_rows(connection, statement)), None)
                if row is None and has_chunks(connection, collection_id, document_id):
                    raise damaged("document")
        if row is None:
            raise DocumentNotFound("the collection holds no document with this id")
        check_text(row.text, row.content_hash, row.text_checksum)
        document = Document(
            id=row.id, text=row.text, title=row.title, metadata=row.metadata, subject=row.subject
        )
        return StoredDocument(document, row.num_chunks, row.created_at, row.updated_at)

    def delete(self, collection: str, document_id: str) -> None:
        """Delete a document; searches that start after the return no longer find it.

        Raises:
            CollectionNotFound: no collection has this path.
            DocumentNotFound: the collection holds no document with this id.
        """
        with self._database.write() as connection:
            write = Write(connection, require_collection(connection, collection, lock=True))
            if not is_document_id(document_id) or not write.remove(document_id):
                raise DocumentNotFound("the collection holds no document with this id")
            write.finish()


def _rows(connection: Connection, statement: Select[Any]) -> Sequence[Row[Any]]:
    """Return rows with every column of `DOCUMENT`; raises DatabaseDamaged for a damaged one."""
    try:
        rows = connection.execute(statement).all()
    except ValueError:  # what should be JSON is none
        raise damaged("document") from None
    for row in rows:
        check_document(row._mapping, row.checksum)
    return rows


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
