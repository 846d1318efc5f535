"""Erasure: documents that must be gone, and the receipt that says where they still are.

Erasing hides documents at once: one transaction deletes them and what tasks hold of them, writes
the receipt, and raises the collection's epoch, by which every index and snapshot made before it is
known to be unclean. What is left in files and memories is then removed place by place;
``graphs/erasing.py`` sees to that, again after a crash. It does not know replicas or files.
"""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
from sqlalchemy import Connection, Row, insert, select, update

from deployments.errors import NotFound
from deployments.stores import schema
from deployments.stores.batches.erasure import erase_lines
from deployments.stores.collections import require_collection
from deployments.stores.content import BUILT_IN
from deployments.stores.damage import check_document, damaged
from deployments.stores.database import Database
from deployments.stores.feedback import erase_feedback
from deployments.stores.ids import new_id, utc_now
from deployments.stores.metadata import MetadataIndex
from deployments.stores.paths import path_of
from deployments.stores.removal import (
    READ_PAGE,
    delete_collection,
    delete_documents,
    documents_of,
    pages,
)
from deployments.stores.suppressions import Suppressions
from deployments.stores.tasks.erasing import erase_tasks
from deployments.types import (
    PLACES,
    ErasedPart,
    Erasure,
    ErasureKind,
    ErasureScope,
    MetadataFilter,
    Place,
)


class ErasureStore:
    """Erases, and keeps the receipts; safe to use from many threads and processes."""

    def __init__(self, database: Database, pepper: bytes) -> None:
        self._database = database
        self._suppressions = Suppressions(pepper)

    def erase(self, scope: ErasureScope) -> Erasure:
        """Delete what the scope says and return the receipt; no place is clean yet.

        Raises:
            CollectionNotFound: no collection has this path.
            DatabaseDamaged: a filter cannot be trusted, for a document is damaged.
            StoreUnavailable: the database did not answer; safe to retry.
        """
        with self._database.write() as connection:
            collections = _collections(connection, scope)
            parts = [self._erase_from(connection, one, scope) for one in collections]
            erasure = Erasure(
                id=new_id("era"),
                tenant=scope.tenant,
                kind=scope.kind,
                parts=tuple(part for part in parts if part is not None),
                places=cast("dict[Place, str | None]", dict.fromkeys(PLACES)),
                requested_at=utc_now(),
            )
            if scope.kind == "subject":
                self._suppressions.add(connection, [("subject", scope.tenant, scope.subject)])
            connection.execute(insert(schema.erasures).values(_values(erasure)))
            paths = [path_of(one.tenant, one.name) for one in collections]
            erase_lines(connection, scope.tenant, paths)
            if scope.subject is not None:
                erase_feedback(connection, scope.tenant, scope.subject)
            erase_tasks(connection, scope, paths)
        return erasure

    def get(self, tenant: str, erasure_id: str) -> Erasure:
        """Return a receipt of a tenant's; raises NotFound."""
        table = schema.erasures
        where = (table.c.id == erasure_id, table.c.tenant == tenant)
        with self._database.read() as connection:
            row = connection.execute(select(table).where(*where)).one_or_none()
        if row is None:
            raise NotFound("there is no erasure with this id")
        return _erasure(row)

    def incomplete(self) -> list[Erasure]:
        """Return the erasures that have a place left to clean, the oldest first."""
        table = schema.erasures
        statement = select(table).where(table.c.completed_at.is_(None)).order_by(table.c.id)
        with self._database.read() as connection:
            return [_erasure(row) for row in connection.execute(statement)]

    def mark(self, erasure_id: str, place: Place) -> Erasure:
        """Note that a place is clean now, unless it was before; return the receipt."""
        table = schema.erasures
        with self._database.write() as connection:
            statement = select(table).where(table.c.id == erasure_id).with_for_update()
            row = connection.execute(statement).one()
            places = {**row.places, place: row.places.get(place) or utc_now()}
            done = all(places.values())
            values = {"places": places, "completed_at": max(places.values()) if done else None}
            connection.execute(update(table).where(table.c.id == erasure_id).values(values))
            return _erasure(connection.execute(statement).one())

    def _erase_from(
        self, connection: Connection, collection: Row[Any], scope: ErasureScope
    ) -> ErasedPart | None:
        name = (collection.tenant, collection.name)
        if scope.kind == "collection":
            num_chunks = _num_chunks(connection, collection.id)
            num_documents = delete_collection(connection, collection)
            self._suppressions.add(connection, [("collection", *name)])
            return ErasedPart(collection.name, collection.id, num_documents, num_chunks)
        doomed = list(_matching(connection, collection.id, scope))
        if not doomed and scope.kind == "subject":
            return None
        num_chunks = delete_documents(connection, collection, doomed)
        self._suppressions.add(connection, [("document", *name, one) for one in doomed])
        return ErasedPart(collection.name, collection.id, len(doomed), num_chunks)


def _collections(connection: Connection, scope: ErasureScope) -> list[Row[Any]]:
    """Return the rows of the collections that a scope may reach, held against other writers."""
    if scope.collection is not None:
        return [require_collection(connection, scope.collection, lock=True)]
    table = schema.collections
    statement = select(table).where(table.c.tenant == scope.tenant).order_by(table.c.id)
    return list(connection.execute(statement.with_for_update()))


def _matching(connection: Connection, collection_id: str, scope: ErasureScope) -> Iterator[str]:
    table = schema.documents
    ids = select(table.c.id).where(table.c.collection_id == collection_id)
    if scope.document_ids is not None:
        for page in pages(list(dict.fromkeys(scope.document_ids))):
            yield from connection.scalars(ids.where(table.c.id.in_(page))).all()
    elif scope.subject is not None:
        yield from connection.scalars(ids.where(table.c.subject == scope.subject)).all()
    elif scope.filter is not None:
        rows = _sound(connection, collection_id)
        for start in range(0, len(rows), READ_PAGE):
            yield from _filtered(rows[start : start + READ_PAGE], scope.filter)


def _sound(connection: Connection, collection_id: str) -> list[Row[Any]]:
    try:
        rows = list(documents_of(connection, collection_id))
    except ValueError:  # what should be JSON is none
        raise damaged("document") from None
    for row in rows:
        check_document(row._mapping, row.checksum)
    return rows


def _filtered(rows: Sequence[Row[Any]], filter: MetadataFilter) -> Iterator[str]:
    """Yield the ids of the documents that match, by the very code that searches use."""
    index = MetadataIndex()
    documents = [
        row.metadata
        | dict(zip(BUILT_IN, (row.id, row.title, row.created_at, row.updated_at), strict=True))
        for row in rows
    ]
    index.stage(np.arange(len(rows), dtype=np.int64), documents)
    for row, matches in zip(rows, index.matching(filter), strict=True):
        if matches:
            yield row.id


def _num_chunks(connection: Connection, collection_id: str) -> int:
    counts = select(schema.documents.c.num_chunks).where(
        schema.documents.c.collection_id == collection_id
    )
    return sum(connection.scalars(counts))


def _values(erasure: Erasure) -> dict[str, Any]:
    parts = [
        [part.collection, part.collection_id, part.num_documents, part.num_chunks]
        for part in erasure.parts
    ]
    return {
        "id": erasure.id,
        "tenant": erasure.tenant,
        "kind": erasure.kind,
        "parts": parts,
        "places": dict(erasure.places),
        "requested_at": erasure.requested_at,
    }


def _erasure(row: Row[Any]) -> Erasure:
    return Erasure(
        id=row.id,
        tenant=row.tenant,
        kind=cast("ErasureKind", row.kind),
        parts=tuple(ErasedPart(*part) for part in row.parts),
        places=row.places,
        requested_at=row.requested_at,
        completed_at=row.completed_at,
    )
