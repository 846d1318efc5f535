"""A collection's row: every change of it goes through here, so that its checksum stays true."""

from typing import Any

from sqlalchemy import Connection, Row, update

from deployments.stores import schema
from deployments.stores.checksums import COLLECTION, row_checksum


def change_collection(connection: Connection, collection: Row[Any], **values: Any) -> None:
    """Change columns of a row that was read, and is held, in the same transaction."""
    table = schema.collections
    checksum = row_checksum(COLLECTION, {**collection._mapping, **values})
    connection.execute(
        update(table).where(table.c.id == collection.id).values(**values, checksum=checksum)
    )
