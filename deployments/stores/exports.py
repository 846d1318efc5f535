"""A collection as one Parquet file: a row per document, its chunks and vectors in a list.

An export is one state of the collection, read in one transaction and written in bounded memory.
"""

import dataclasses
import json
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
from sqlalchemy import Connection, Row, Text, cast, select

from deployments.stores import schema
from deployments.stores.collections import require_collection
from deployments.stores.content import content_hash
from deployments.stores.damage import check_chunk, check_text, damaged, sound_metadata
from deployments.stores.database import Database
from deployments.stores.seals import SealedWriter
from deployments.types import CollectionSettings, Document, IndexSettings

FORMAT = "1"
SETTINGS = "ragserve.collection"
VERSION = "ragserve.format"
SOURCE = "ragserve.name"
"""The collection's name: what was erased from it does not come back under another one."""

GROUP_BYTES = 8 * 1024 * 1024
GROUP_ROWS = 10_000
READ_ROWS = 32
"""Documents fetched at a time: each may have a text of 16 MiB."""

CHUNK = pa.struct(
    [
        pa.field("start", pa.int32()),
        pa.field("end", pa.int32()),
        pa.field("vector", pa.list_(pa.float32())),
    ]
)
EXPORT = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("title", pa.string()),
        pa.field("text", pa.string()),
        pa.field("metadata", pa.string()),
        pa.field("subject", pa.string()),
        pa.field("created_at", pa.string()),
        pa.field("updated_at", pa.string()),
        pa.field("is_ready", pa.bool_()),
        pa.field("chunks", pa.list_(CHUNK)),
    ]
)
"""`metadata` is JSON; `is_ready`: whether the caller brought the vectors."""


class Export:
    """One export: its pieces in order, and afterwards what was in them."""

    def __init__(self, database: Database, collection: str) -> None:
        self._database = database
        self._collection = collection
        self.num_documents = 0
        self.num_chunks = 0

    def pieces(self) -> Generator[bytes]:
        """Yield the file, 8 MiB of content at a time; closing the iterator ends the transaction.

        Raises:
            CollectionNotFound: no collection has this path.
            StoreUnavailable: the database did not answer; safe to retry.
        """
        with self._database.read() as connection:
            collection = require_collection(connection, self._collection)
            writer = SealedWriter(EXPORT)
            group = _Group(collection.dim)
            for document, chunks in _documents(connection, collection.id):
                group.add(document, chunks)
                if group.is_full:
                    yield self._written(writer, group)
                    group = _Group(collection.dim)
            if group.rows:
                yield self._written(writer, group)
            settings = json.dumps(settings_of(collection))
            yield writer.finish({VERSION: FORMAT, SETTINGS: settings, SOURCE: collection.name})

    def _written(self, writer: SealedWriter, group: "_Group") -> bytes:
        self.num_documents += len(group.rows)
        self.num_chunks += len(group.starts)
        return writer.write(group.table())


def settings_of(collection: Row[Any]) -> dict[str, Any]:
    """Return what a collection was created with, as JSON."""
    settings = CollectionSettings(
        description=collection.description,
        embedding_model=collection.embedding_model,
        dim=collection.dim,
        metric=collection.metric,
        index=IndexSettings(**collection.index_settings),
        default_metadata=collection.default_metadata,
    )
    return dataclasses.asdict(settings)


def _documents(connection: Connection, collection_id: str) -> Iterator[tuple[Any, list[Any]]]:
    """Yield documents by id, each with its chunks: two cursors side by side.

    Raises:
        DatabaseDamaged: a document or one of its chunks is not what was written, or missing.
    """
    documents, chunks = schema.documents, schema.chunks
    options = {"yield_per": READ_ROWS}
    rows = connection.execute(
        select(
            *documents.c["id", "title", "text", "subject", "created_at", "updated_at"],
            *documents.c["content_hash", "num_chunks", "checksum", "text_checksum"],
            cast(documents.c.metadata, Text).label("metadata"),
        )
        .where(documents.c.collection_id == collection_id)
        .order_by(documents.c.id),
        execution_options=options,
    )
    parts = connection.execute(
        select(*chunks.c["document_id", "start", "end", "vector", "number", "id", "checksum"])
        .where(chunks.c.collection_id == collection_id)
        .order_by(chunks.c.document_id, chunks.c.number),
        execution_options=options,
    )
    with closing(rows), closing(parts):
        yield from _joined(rows, parts)


def _joined(rows: Iterable[Any], parts: Iterable[Any]) -> Iterator[tuple[Any, list[Any]]]:
    groups = groupby(parts, key=lambda row: row.document_id)
    owner, part = next(groups, (None, iter(())))
    for row in rows:
        own = list(part) if row.id == owner else []
        _check(row, own)
        yield row, own
        if row.id == owner:
            owner, part = next(groups, (None, iter(())))
    if owner is not None:
        raise damaged("chunk's document")


def _check(row: Any, chunks: list[Any]) -> None:
    sound_metadata(row._mapping, row.checksum)
    check_text(row.text, row.content_hash, row.text_checksum)
    if len(chunks) != row.num_chunks:
        raise damaged("document's index")
    for one in chunks:
        text = row.text[one.start : one.end]
        place = (one.number, one.id, row.id, one.start, one.end)
        check_chunk(*place, text, one.vector, one.checksum)


class _Group:
    """The documents of one row group."""

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self.rows: list[tuple[Any, ...]] = []
        self.starts: list[int] = []
        self._ends: list[int] = []
        self._vectors: list[bytes] = []
        self._offsets = [0]
        self._num_bytes = 0

    @property
    def is_full(self) -> bool:
        """Return whether no further document is to come in."""
        return self._num_bytes >= GROUP_BYTES or len(self.rows) >= GROUP_ROWS

    def add(self, row: Row[Any], chunks: list[Row[Any]]) -> None:
        """Take a document."""
        content = Document(
            id=row.id,
            text=row.text,
            title=row.title,
            metadata=json.loads(row.metadata),
            subject=row.subject,
        )
        is_ready = content_hash(content) != row.content_hash
        times = (row.created_at, row.updated_at)
        self.rows.append((row.id, row.title, row.text, row.metadata, row.subject, *times, is_ready))
        for chunk in chunks:
            self.starts.append(chunk.start)
            self._ends.append(chunk.end)
            self._vectors.append(chunk.vector)
        self._offsets.append(len(self.starts))
        self._num_bytes += 4 * len(row.text) + 4 * self._dim * len(chunks)

    def table(self) -> pa.Table:
        """Return the row group."""
        numbers = np.frombuffer(b"".join(self._vectors), dtype="<f4")
        ends = np.arange(len(self.starts) + 1, dtype=np.int32) * self._dim
        vectors = pa.ListArray.from_arrays(pa.array(ends), pa.array(numbers))
        chunks = pa.StructArray.from_arrays(
            [pa.array(self.starts, pa.int32()), pa.array(self._ends, pa.int32()), vectors],
            fields=list(CHUNK),
        )
        lists = pa.ListArray.from_arrays(pa.array(self._offsets, pa.int32()), chunks)
        columns = [
            pa.array(values, field.type)
            for values, field in zip(zip(*self.rows, strict=True), EXPORT, strict=False)
        ]
        return pa.Table.from_arrays([*columns, lists], schema=EXPORT)
