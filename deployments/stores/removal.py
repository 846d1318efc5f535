"""Deleting many documents of a collection at once, so that nothing made of them outlives them."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select

from deployments.stores import schema
from deployments.stores.collection_rows import change_collection

READ_PAGE = 5000
"""Documents read together, without their text."""

PAGE = 500
"""Ids per IN clause: SQLite and PostgreSQL both bound the parameters of a statement."""


def documents_of(connection: Connection, collection_id: str) -> Iterator[Row[Any]]:
    """Yield every document of a collection without its text."""
    table = schema.documents
    columns = table.c["id", "title", "metadata", "subject", "num_chunks"]
    statement = select(*columns, *table.c["created_at", "updated_at", "checksum"]).where(
        table.c.collection_id == collection_id
    )
    statement = statement.order_by(table.c.id).limit(READ_PAGE)
    rows = connection.execute(statement).all()
    while rows:
        yield from rows
        rows = connection.execute(statement.where(table.c.id > rows[-1].id)).all()


def delete_documents(connection: Connection, collection: Row[Any], ids: Sequence[str]) -> int:
    """Delete documents, log their chunks as removed, raise the epoch; return how many chunks."""
    chunks, documents = schema.chunks, schema.documents
    sequence = collection.sequence + 1
    num_documents = num_chunks = 0
    for page in pages(ids):
        where = (chunks.c.collection_id == collection.id, chunks.c.document_id.in_(page))
        numbers = connection.scalars(select(chunks.c.number).where(*where)).all()
        log = {"collection_id": collection.id, "sequence": sequence}
        if numbers:
            rows = [{**log, "number": number} for number in numbers]
            connection.execute(insert(schema.removed_chunks), rows)
        connection.execute(delete(chunks).where(*where))
        of_page = (documents.c.collection_id == collection.id, documents.c.id.in_(page))
        num_documents += connection.execute(delete(documents).where(*of_page)).rowcount
        num_chunks += len(numbers)
    change_collection(
        connection,
        collection,
        sequence=sequence,
        epoch=collection.epoch + 1,
        num_documents=collection.num_documents - num_documents,
        num_chunks=collection.num_chunks - num_chunks,
    )
    return num_chunks


def delete_collection(connection: Connection, collection: Row[Any]) -> int:
    """Delete a collection; return how many documents it had."""
    for table in (schema.chunks, schema.removed_chunks):
        connection.execute(delete(table).where(table.c.collection_id == collection.id))
    documents, collections = schema.documents, schema.collections
    result = connection.execute(delete(documents).where(documents.c.collection_id == collection.id))
    connection.execute(delete(collections).where(collections.c.id == collection.id))
    return result.rowcount


def pages(items: Sequence[Any]) -> Iterator[list[Any]]:
    """Yield items by `PAGE`."""
    for start in range(0, len(items), PAGE):
        yield list(items[start : start + PAGE])
