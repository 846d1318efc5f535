"""Collections: their names, settings and sizes. Documents and the log are their neighbours'.

A collection is addressed by its path (``paths.py``).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, insert, select
from sqlalchemy.exc import IntegrityError

from deployments.errors import CollectionNotFound, Conflict
from deployments.stores import schema
from deployments.stores.checksums import COLLECTION, row_checksum
from deployments.stores.collection_rows import change_collection
from deployments.stores.content import check_metadata, check_text, invalid
from deployments.stores.damage import check_collection, damaged
from deployments.stores.database import Database
from deployments.stores.ids import new_id, utc_now
from deployments.stores.paths import check_path, parts_of, path_of
from deployments.stores.removal import delete_collection
from deployments.types import (
    CollectionChanges,
    CollectionInfo,
    CollectionSettings,
    IndexSettings,
    Metric,
    VectorSpace,
)

INFO = (
    *("description", "embedding_model", "dim", "metric", "default_metadata"),
    *("num_documents", "num_chunks", "sequence", "created_at"),
)
"""The columns that are told of a collection as they are."""


class CollectionStore:
    """Creates, lists, changes and deletes collections."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, path: str, settings: CollectionSettings) -> CollectionInfo:
        """Create an empty collection.

        Raises:
            InvalidRequest: the name does not match, or a setting cannot be, which `param` names.
            Conflict: the tenant has a collection of this name.
        """
        check_path(path)
        _check_settings(settings)
        with self._database.write() as connection:
            if not insert_collection(connection, path, settings):
                raise Conflict(f"collection {path} exists")
            return _info(_sound(connection, _infos(path))[0])

    def get(self, path: str) -> CollectionInfo:
        """Return one collection; raises CollectionNotFound."""
        with self._database.read() as connection:
            require_collection(connection, path)
            return _info(_sound(connection, _infos(path))[0])

    def space(self, path: str) -> VectorSpace:
        """Return what a collection's vectors are; raises CollectionNotFound."""
        with self._database.read() as connection:
            row = require_collection(connection, path)
            return VectorSpace(row.embedding_model, row.dim, row.metric)

    def list(self, tenant: str | None = None) -> list[CollectionInfo]:
        """Return every collection of a tenant, or of all, by name."""
        statement = _infos()
        if tenant is not None:
            statement = statement.where(schema.collections.c.tenant == tenant)
        with self._database.read() as connection:
            return [_info(row) for row in _sound(connection, statement)]

    def update(self, path: str, changes: CollectionChanges) -> CollectionInfo:
        """Change what can be changed, and return the whole.

        New default metadata is for the documents stored from then on: storing an unchanged
        document again gives it the new defaults.

        Raises:
            InvalidRequest: a setting cannot be, which `param` names.
            CollectionNotFound: no collection has this path.
        """
        with self._database.write() as connection:
            row = require_collection(connection, path, lock=True)
            old = IndexSettings(**row.index_settings)
            index = IndexSettings(
                kind=changes.index_kind or old.kind,
                storage=changes.index_storage or old.storage,
            )
            _check_index(row.metric, index)
            values: dict[str, Any] = {"index_settings": dataclasses.asdict(index)}
            if changes.description is not None:
                check_text(changes.description, "description")
                values["description"] = changes.description
            if changes.default_metadata is not None:
                check_metadata(changes.default_metadata, "default_metadata")
                values["default_metadata"] = changes.default_metadata
            change_collection(connection, row, **values)
            return _info(_sound(connection, _infos(path))[0])

    def delete(self, path: str) -> None:
        """Delete a collection with all its documents; raises CollectionNotFound."""
        with self._database.write() as connection:
            delete_collection(connection, require_collection(connection, path, lock=True))


def insert_collection(connection: Connection, path: str, settings: CollectionSettings) -> bool:
    """Insert a collection's row; return False when the tenant has one of this name."""
    tenant, name = check_path(path)
    row: dict[str, Any] = {
        "id": new_id("col"),
        "tenant": tenant,
        "name": name,
        "description": settings.description,
        "embedding_model": settings.embedding_model,
        "dim": settings.dim,
        "epoch": 0,
        "num_documents": 0,
        "num_chunks": 0,
        "metric": settings.metric,
        "index_settings": dataclasses.asdict(settings.index),
        "default_metadata": settings.default_metadata,
        "sequence": 0,
        "next_chunk_number": 0,
        "log_start": 0,
        "created_at": utc_now(),
    }
    row["checksum"] = row_checksum(COLLECTION, row)
    try:
        with connection.begin_nested():
            connection.execute(insert(schema.collections).values(row))
    except IntegrityError:
        return False
    return True


def find_collection(connection: Connection, path: str, *, lock: bool = False) -> Row[Any] | None:
    """Return a collection's row; `lock` holds it against other writers of the transaction.

    Raises:
        DatabaseDamaged: the row is not what was written.
    """
    parts = parts_of(path)
    if parts is None:
        return None
    table = schema.collections
    statement = select(table).where(table.c.tenant == parts[0], table.c.name == parts[1])
    found = _sound(connection, statement.with_for_update() if lock else statement)
    return found[0] if found else None


def require_collection(connection: Connection, path: str, *, lock: bool = False) -> Row[Any]:
    """Return a collection's row as `find_collection` does; raises CollectionNotFound."""
    row = find_collection(connection, path, lock=lock)
    if row is None:
        raise not_found(path)
    return row


def not_found(path: str) -> CollectionNotFound:
    """Return the error for a path that no collection has."""
    return CollectionNotFound(f"collection {path!r} does not exist")


def _check_settings(settings: CollectionSettings) -> None:
    check_text(settings.description, "description")
    check_metadata(settings.default_metadata, "default_metadata")
    if settings.dim < 1:
        raise invalid("vectors have at least one dimension", "dim")
    _check_index(settings.metric, settings.index)


def _check_index(metric: Metric, index: IndexSettings) -> None:
    if index.storage == "int8" and metric != "cosine":
        raise invalid("`int8` is for the metric `cosine` only", "index.storage")


def _infos(path: str | None = None) -> Select[Any]:
    """Return the statement for all collections or one."""
    table = schema.collections
    statement = select(table).order_by(table.c.tenant, table.c.name)
    if path is None:
        return statement
    tenant, name = check_path(path)
    return statement.where(and_(table.c.tenant == tenant, table.c.name == name))


def _info(row: Row[Any]) -> CollectionInfo:
    values = {name: getattr(row, name) for name in INFO}
    index = IndexSettings(**row.index_settings)
    return CollectionInfo(index=index, name=path_of(row.tenant, row.name), **values)


def _sound(connection: Connection, statement: Select[Any]) -> Sequence[Row[Any]]:
    """Return rows with every column of a collection; raises DatabaseDamaged for a damaged one."""
    try:
        rows = connection.execute(statement).all()
    except ValueError:  # what should be JSON is none
        raise damaged("collection") from None
    for row in rows:
        check_collection(row._mapping)
    return rows
