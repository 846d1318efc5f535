"""The log as its followers read it: what a collection gained and lost after a sequence number."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, Select, Text, bindparam, cast, func, select, tuple_

from deployments.errors import DatabaseDamaged
from deployments.stores import schema
from deployments.stores.buckets import WHOLE, Shard
from deployments.stores.checksums import COLLECTION
from deployments.stores.collections import not_found
from deployments.stores.content import BUILT_IN
from deployments.stores.damage import (
    check_chunk,
    check_collection,
    damaged,
    parsed,
    sound_metadata,
)
from deployments.stores.paths import parts_of
from deployments.types import IndexSettings, Metric, Vectors

MAX_ROWS = 2000
"""Chunks per batch: 3 MB of vectors at 384 dimensions, and their texts."""

JSON = ("index_settings", "default_metadata")

MAX_NUMBER = 2**63 - 1

Owner = tuple[int, str]
"""A version of a document: the sequence number of its chunks, and its id."""

Rows = Sequence[Row[*tuple[Any, ...]]]

Ask = Callable[[Select[Any], Mapping[str, Any]], Iterable[Any]]
"""Returns a statement's rows: `Database.rows`, or `Connection.execute` of a transaction."""

HEADS = select(
    *(
        cast(schema.collections.c[name], Text) if name in JSON else schema.collections.c[name]
        for name in COLLECTION
    ),
    schema.collections.c.checksum,
)

HEAD = HEADS.where(
    schema.collections.c.tenant == bindparam("tenant"),
    schema.collections.c.name == bindparam("name"),
)

MAX_HEADS = 4096
"""Rows of collections whose checksums are remembered: searches read the same ones again."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where a collection's log stands. `id` differs when a name is deleted and created again."""

    id: str
    sequence: int
    log_start: int
    dim: int
    embedding_model: str
    metric: Metric = "cosine"
    epoch: int = 0
    index: IndexSettings = field(default_factory=IndexSettings)
    num_chunks: int | None = None
    """How many chunks it has; None: not known."""


HEAD_FIELDS = tuple(one.name for one in fields(Head) if one.name != "index")


@dataclass(frozen=True, slots=True)
class Changes:
    """Part of what happened, in the order of the log: chunks by number, int64[n]."""

    numbers: NDArray[np.int64]
    vectors: Vectors
    texts: tuple[str, ...]
    removed: NDArray[np.int64]
    owners: NDArray[np.int64]
    """Each chunk's document by its position in `documents`; -1 is the last of the batch before."""
    documents: tuple[dict[str, Any], ...]
    """The metadata that filters see: the document's own and `BUILT_IN`."""


def head(ask: Ask, collection: str) -> Head:
    """Return where a collection's log stands, by its path.

    Raises:
        CollectionNotFound: no collection has this path.
        DatabaseDamaged: its row is not what was written.
    """
    parts = parts_of(collection)
    rows = ask(HEAD, {"tenant": parts[0], "name": parts[1]}) if parts else ()
    for row in rows:
        return _head(tuple(row))
    raise not_found(collection)


def heads(ask: Ask) -> dict[str, Head]:
    """Return where the log of every collection stands, by its id; but of damaged ones."""
    found = {}
    for row in ask(HEADS, {}):
        with suppress(DatabaseDamaged):  # it is logged, and must not keep the others from anything
            found[row[0]] = _head(tuple(row))
    return found


@lru_cache(MAX_HEADS)
def _head(values: tuple[Any, ...]) -> Head:
    row = dict(zip((*COLLECTION, "checksum"), values, strict=True))
    row |= {name: parsed(row[name], "collection") for name in JSON}
    check_collection(row)
    known = {name: row[name] for name in HEAD_FIELDS}
    return Head(**known, index=IndexSettings(**row["index_settings"]))


def totals(connection: Connection, head: Head, shard: Shard) -> tuple[int, int]:
    """Return how many chunks a shard has, and the sum of their numbers."""
    chunks, buckets = schema.chunks, shard.buckets
    statement = select(func.count(), func.coalesce(func.sum(chunks.c.number), 0)).where(
        chunks.c.collection_id == head.id
    )
    if shard.total > 1:
        statement = statement.where(chunks.c.bucket.between(buckets.start, buckets.stop - 1))
    count, total = connection.execute(statement).one()
    return int(count), int(total)


def changes_since(
    connection: Connection, head: Head, sequence: int, shard: Shard = WHOLE
) -> Iterator[Changes]:
    """Yield what happened after `sequence`, in bounded batches; only all of them are a whole.

    A chunk that came and went meanwhile appears only among the removed. `texts` are what the
    lexical index holds: the document's title and the chunk. `sequence` is 0 or at least the
    log's start. Of a shard, only its own chunks are added; what is removed may be another's.
    """
    if sequence:  # whoever starts empty has nothing to remove
        yield from _removed(connection, head, sequence)
    yield from _added(connection, head, sequence, shard)


def _removed(connection: Connection, head: Head, sequence: int) -> Iterator[Changes]:
    assert sequence >= head.log_start
    removed = schema.removed_chunks
    position = (sequence, MAX_NUMBER)
    while True:
        columns = (removed.c.sequence, removed.c.number)
        statement = select(*columns).where(removed.c.collection_id == head.id)
        statement = statement.where(tuple_(*columns) > position).order_by(*columns).limit(MAX_ROWS)
        rows = connection.execute(statement).all()
        if not rows:
            return
        position = (rows[-1].sequence, rows[-1].number)
        yield _removals(rows, head.dim)


def _added(connection: Connection, head: Head, sequence: int, shard: Shard) -> Iterator[Changes]:
    chunks, documents = schema.chunks, schema.documents
    order = (chunks.c.sequence, chunks.c.number)
    statement = (
        select(
            *order,
            *chunks.c["id", "vector", "text", "document_id", "start", "end", "checksum"],
            *documents.c["title", "created_at", "updated_at"],
            *documents.c["subject", "num_chunks"],
            documents.c.checksum.label("document_checksum"),
            cast(documents.c.metadata, Text).label("metadata"),
        )
        .join(documents)
        .where(chunks.c.collection_id == head.id)
        .order_by(*order)
        .limit(MAX_ROWS)
    )
    if shard.total > 1:
        buckets = shard.buckets
        statement = statement.where(chunks.c.bucket.between(buckets.start, buckets.stop - 1))
    position = (sequence, MAX_NUMBER)
    last: Owner | None = None
    count = _DocumentCount()
    while True:
        rows = connection.execute(statement.where(tuple_(*order) > position)).all()
        count.take(rows)
        if not rows:
            return
        position = (rows[-1].sequence, rows[-1].number)
        yield _additions(rows, head.dim, last)
        last = _owner(rows[-1])


class _DocumentCount:
    """Compares the chunks that come with how many each document has: an index may hide some.

    The chunks of one version of a document follow each other in the log.
    """

    def __init__(self) -> None:
        self._owner: Owner | None = None
        self._num_left = 0

    def take(self, rows: Rows) -> None:
        """Count the next rows; none is the end. Raises DatabaseDamaged when some are missing."""
        for row in rows:
            owner = _owner(row)
            if owner != self._owner:
                self._check()
                if not isinstance(row.num_chunks, int):  # SQLite finds NULL where a page is torn
                    raise damaged("document")
                self._owner, self._num_left = owner, row.num_chunks
            self._num_left -= 1
        if not rows:
            self._check()

    def _check(self) -> None:
        if self._num_left:
            raise damaged("document's index")


def _removals(rows: Rows, dim: int) -> Changes:
    numbers = np.fromiter((row.number for row in rows), dtype=np.int64, count=len(rows))
    none = np.empty(0, dtype=np.int64)
    return Changes(none, np.empty((0, dim), dtype=np.float32), (), numbers, none, ())


def _additions(rows: Rows, dim: int, last: Owner | None) -> Changes:
    for row in rows:
        place = (row.number, row.id, row.document_id, row.start, row.end)
        check_chunk(*place, row.text, row.vector, row.checksum)
    numbers = np.fromiter((row.number for row in rows), dtype=np.int64, count=len(rows))
    vectors = np.frombuffer(b"".join(row.vector for row in rows), dtype="<f4")
    texts = tuple(f"{row.title}\n{row.text}" for row in rows)
    shaped = vectors.astype(np.float32, copy=False).reshape(len(rows), dim)
    owners, documents = _documents(rows, last)
    return Changes(numbers, shaped, texts, np.empty(0, dtype=np.int64), owners, documents)


def _documents(
    rows: Rows, last: Owner | None
) -> tuple[NDArray[np.int64], tuple[dict[str, Any], ...]]:
    """Return each chunk's document, once for all its chunks, which follow each other."""
    owners, documents = [], []
    for row in rows:
        owner = _owner(row)
        if owner != last:
            built_in = (row.document_id, row.title, row.created_at, row.updated_at)
            named = {**row._mapping, "id": row.document_id}
            found = sound_metadata(named, row.document_checksum)
            documents.append(found | dict(zip(BUILT_IN, built_in, strict=True)))
            last = owner
        owners.append(len(documents) - 1)
    return np.array(owners, dtype=np.int64), tuple(documents)


def _owner(row: Row[*tuple[Any, ...]]) -> Owner:
    return row.sequence, row.document_id
