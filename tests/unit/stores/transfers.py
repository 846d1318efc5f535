"""Collections out as Parquet and in again, and tables of other makers."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import select

from deployments.stores import schema
from deployments.stores.database import Database
from deployments.stores.exports import Export
from deployments.stores.imports import Import
from deployments.stores.suppressions import Suppressions
from deployments.types import Document, Imported
from tests.unit.stores.material import doc

SUPPRESSIONS = Suppressions(bytes(32))

DOCUMENTS = [
    doc("plain"),
    doc(
        "多语言",
        "检索增强生成。" * 20,
        title="标题 🦜",
        语言="中文",
        list=["a", 1, None],
        none=None,
    ),
    doc("empty", ""),
    Document(
        id="person", text="about someone", subject="subject-1", metadata={"f": 1.5, "b": True}
    ),
]


def exported(database: Database, collection: str = "c") -> bytes:
    return b"".join(Export(database, collection).pieces())


def imported(database: Database, content: bytes, collection: str = "c") -> Imported:
    return Import(database, SUPPRESSIONS, collection).run(io.BytesIO(content))


def table(**columns: object) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def chunks(database: Database, collection: str) -> list[tuple[object, ...]]:
    c = schema.chunks
    with database.read() as connection:
        statement = select(c.c.document_id, c.c.start, c.c.end, c.c.text, c.c.vector, c.c.bucket)
        joined = statement.join(schema.collections, schema.collections.c.id == c.c.collection_id)
        named = joined.where(schema.collections.c.name == collection)
        return sorted(tuple(row) for row in connection.execute(named))
