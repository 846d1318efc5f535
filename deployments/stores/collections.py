"""Collections: their names, settings and sizes. Documents and the log are their neighbours'."""

import dataclasses
from typing import Any

from sqlalchemy import Connection, Row, Select, func, insert, select
from sqlalchemy.exc import IntegrityError

from deployments.errors import CollectionNotFound, Conflict
from deployments.stores import schema
from deployments.stores.content import check_collection_name, check_text, is_collection_name
from deployments.stores.database import Database
from deployments.stores.ids import new_id, utc_now
from deployments.stores.removal import delete_collection
from deployments.types import CollectionInfo, CollectionSettings, IndexSettings


class CollectionStore:
    """Creates, lists and deletes collections."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, name: str, settings: CollectionSettings) -> CollectionInfo:
        """Create an empty collection.

        Raises:
            InvalidRequest: the name does not match, or the description cannot be stored.
            Conflict: the name is taken.
        """
        check_collection_name(name)
        check_text(settings.description, "description")
        with self._database.write() as connection:
            if not insert_collection(connection, name, settings):
                raise Conflict(f"collection {name} exists")
            return _info(connection.execute(_infos(name)).one())

    def get(self, name: str) -> CollectionInfo:
        """Return one collection; raises CollectionNotFound."""
        with self._database.read() as connection:
            require_collection(connection, name)
            return _info(connection.execute(_infos(name)).one())

    def list(self) -> list[CollectionInfo]:
        """Return every collection, by name."""
        with self._database.read() as connection:
            return [_info(row) for row in connection.execute(_infos())]

    def delete(self, name: str) -> None:
        """Delete a collection with all its documents; raises CollectionNotFound."""
        with self._database.write() as connection:
            delete_collection(connection, require_collection(connection, name, lock=True))


def insert_collection(connection: Connection, name: str, settings: CollectionSettings) -> bool:
    """Insert a collection's row; return False when the name is taken."""
    row = {
        "id": new_id("col"),
        "name": name,
        "description": settings.description,
        "embedding_model": settings.embedding_model,
        "dim": settings.dim,
        "metric": settings.metric,
        "index_settings": dataclasses.asdict(settings.index),
        "default_metadata": settings.default_metadata,
        "sequence": 0,
        "next_chunk_number": 0,
        "log_start": 0,
        "created_at": utc_now(),
    }
    try:
        with connection.begin_nested():
            connection.execute(insert(schema.collections).values(row))
    except IntegrityError:
        return False
    return True


def find_collection(connection: Connection, name: str, *, lock: bool = False) -> Row[Any] | None:
    """Return a collection's row; `lock` holds it against other writers of the transaction."""
    if not is_collection_name(name):
        return None
    statement = select(schema.collections).where(schema.collections.c.name == name)
    return connection.execute(statement.with_for_update() if lock else statement).one_or_none()


def require_collection(connection: Connection, name: str, *, lock: bool = False) -> Row[Any]:
    """Return a collection's row as `find_collection` does; raises CollectionNotFound."""
    row = find_collection(connection, name, lock=lock)
    if row is None:
        raise not_found(name)
    return row


def not_found(name: str) -> CollectionNotFound:
    """Return the error for a name that no collection has."""
    return CollectionNotFound(f"collection {name!r} does not exist")


def _infos(name: str | None = None) -> Select[Any]:
    table, documents = schema.collections, schema.documents
    sizes = (
        select(
            documents.c.collection_id,
            func.count().label("num_documents"),
            func.sum(documents.c.num_chunks).label("num_chunks"),
        )
        .group_by(documents.c.collection_id)
        .subquery()
    )
    statement = (
        select(
            table.c.name,
            table.c.description,
            table.c.embedding_model,
            table.c.dim,
            *table.c["metric", "index_settings", "default_metadata"],
            func.coalesce(sizes.c.num_documents, 0).label("num_documents"),
            func.coalesce(sizes.c.num_chunks, 0).label("num_chunks"),
            table.c.sequence,
            table.c.created_at,
        )
        .outerjoin_from(table, sizes, table.c.id == sizes.c.collection_id)
        .order_by(table.c.name)
    )
    return statement if name is None else statement.where(table.c.name == name)


def _info(row: Row[Any]) -> CollectionInfo:
    values = row._asdict()
    index = IndexSettings(**values.pop("index_settings"))
    return CollectionInfo(index=index, **values)
