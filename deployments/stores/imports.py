"""A Parquet file into a collection: transactions of bounded size, one after another.

A row that cannot be stored is reported and keeps no other out. What a transaction has stored stays
when the import stops later; sending the file again is safe, since documents are stored by id.

Documents of an export that were erased after they had been stored are left out, whether by id, by
filter, by subject or with their collection. Nothing brings them back but storing them anew: by an
upsert, or from a plain table, which says nothing of when its rows were stored.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, BinaryIO

from sqlalchemy import Connection, Row

from deployments.errors import Conflict, DeadlineExceeded, RagError
from deployments.stores.collections import find_collection, insert_collection, require_collection
from deployments.stores.database import Database
from deployments.stores.incoming import Incoming
from deployments.stores.parquet_rows import Limits, ParquetRows
from deployments.stores.suppressions import Stored, Suppressions
from deployments.stores.writes import Write
from deployments.types import CollectionSettings, Imported, Metric, RowError

MAX_ERRORS = 100
"""Refused rows that an answer names; the others are counted."""

MAX_DOCUMENTS = 5000
MAX_BYTES = 32 * 1024 * 1024
"""Of texts and vectors in one transaction, unless a single document has more."""

Stop = Callable[[], bool]


class Import:
    """One file on its way into one collection."""

    def __init__(
        self,
        database: Database,
        suppressions: Suppressions,
        collection: str,
        limits: Limits | None = None,
    ) -> None:
        self._database = database
        self._suppressions = suppressions
        self._collection = collection
        self._limits = limits or Limits()
        self._statuses: Counter[str] = Counter()
        self._num_chunks = 0
        self._num_rows = 0
        self._num_failed = 0
        self._num_suppressed = 0
        self._source: str | None = None
        self._errors: list[RowError] = []

    def run(self, file: BinaryIO, should_stop: Stop = lambda: False) -> Imported:
        """Store a file's rows; an export creates the collection where it is missing.

        Args:
            file: our export, or a plain table (``parquet_rows.py``).
            should_stop: asked between transactions.

        Raises:
            UnreadableDocument: the file is damaged; of an export nothing was stored.
            InvalidRequest: it has other columns.
            CollectionNotFound: no collection has this path, and the file does not describe one.
            Conflict: the collection holds vectors of another model, dimension or metric.
            DeadlineExceeded: it was stopped.
            StoreUnavailable: the database did not answer; safe to repeat.
        """
        rows = ParquetRows(file, self._limits)
        self._source = rows.source
        collection_id, dim, metric = self._opened(rows.settings)
        try:
            with closing(_ahead(_parts(rows.batches(dim, metric)))) as parts:
                for part in parts:
                    if should_stop():
                        raise DeadlineExceeded("the import was stopped before its end")
                    self._store(part, collection_id)
        except RagError as error:
            if self._num_rows:
                error.message += (
                    f"; the first {self._num_rows} rows are done, and sending all again is safe"
                )
            raise
        return self._report()

    def _opened(self, settings: CollectionSettings | None) -> tuple[str, int, Metric]:
        """Return the collection, made as the file says where it is missing."""
        with self._database.write() as connection:
            if settings is not None and find_collection(connection, self._collection) is None:
                insert_collection(connection, self._collection, settings)
            row = require_collection(connection, self._collection)
        if settings is not None:
            theirs = (settings.embedding_model, settings.dim, settings.metric)
            if theirs != (row.embedding_model, row.dim, row.metric):
                raise Conflict(
                    f"the file holds vectors of {theirs[0]!r} ({theirs[1]}, {theirs[2]}), the "
                    f"collection of {row.embedding_model!r} ({row.dim}, {row.metric})"
                )
        return row.id, row.dim, row.metric

    def _store(self, part: list[Incoming], collection_id: str) -> None:
        good = [incoming for incoming in part if incoming.document is not None]
        if good:
            with self._database.write() as connection:
                statuses, num_chunks = self._written(connection, good, collection_id)
            self._statuses.update(statuses)
            self._num_chunks += num_chunks
            self._num_suppressed += len(good) - len(statuses)
        for incoming in part:
            if incoming.error is not None:
                self._num_failed += 1
                if len(self._errors) < MAX_ERRORS:
                    error = incoming.error
                    self._errors.append(
                        RowError(incoming.row, incoming.id, error.message, error.param)
                    )
        self._num_rows += len(part)

    def _written(
        self, connection: Connection, good: list[Incoming], collection_id: str
    ) -> tuple[list[str], int]:
        row = require_collection(connection, self._collection, lock=True)
        if row.id != collection_id:
            raise Conflict("the collection was deleted and made again during the import")
        erased = self._erased(connection, row, good)
        good = [incoming for incoming in good if incoming.id not in erased]
        write = Write(connection, row)
        hashes = write.stored_hashes([incoming.id or "" for incoming in good])
        statuses: list[str] = []
        num_chunks = 0
        for incoming in good:
            document, embedded = incoming.document, incoming.embedded
            assert document is not None
            assert embedded is not None
            old = hashes.get(document.id)
            indexed = write.put(document, embedded, old, times=incoming.times)
            statuses.append(indexed.status)
            num_chunks += indexed.num_chunks
        write.finish()
        return statuses, num_chunks

    def _erased(
        self, connection: Connection, collection: Row[Any], good: list[Incoming]
    ) -> set[str]:
        """Return the ids of what was erased since the file's export.

        Only by the tenant's own erasures: a file could claim to be of another tenant, and its
        result would tell what that one has erased.
        """
        stored = [
            Stored(one.document.id, one.document.subject, one.times[1])
            for one in good
            if one.document is not None and one.times is not None
        ]
        if not stored:
            return set()
        names = list({collection.name, self._source or collection.name})
        return self._suppressions.among(connection, collection.tenant, names, stored)

    def _report(self) -> Imported:
        return Imported(
            collection=self._collection,
            num_rows=self._num_rows,
            num_created=self._statuses["created"],
            num_replaced=self._statuses["replaced"],
            num_unchanged=self._statuses["unchanged"],
            num_chunks=self._num_chunks,
            num_failed=self._num_failed,
            num_suppressed=self._num_suppressed,
            errors=tuple(self._errors),
        )


def _parts(batches: Iterator[list[Incoming]]) -> Iterator[list[Incoming]]:
    """Yield rows for one transaction each; an id that comes again begins the next."""
    part: list[Incoming] = []
    ids: set[str] = set()
    num_bytes = 0
    for batch in batches:
        for incoming in batch:
            size = _num_bytes(incoming)
            is_again = incoming.document is not None and incoming.id in ids
            is_full = num_bytes + size > MAX_BYTES or len(part) >= MAX_DOCUMENTS
            if part and (is_again or is_full):
                yield part
                part, ids, num_bytes = [], set(), 0
            part.append(incoming)
            num_bytes += size
            if incoming.id is not None and incoming.document is not None:
                ids.add(incoming.id)
    if part:
        yield part


def _ahead(parts: Iterator[list[Incoming]]) -> Generator[list[Incoming]]:
    """Yield the parts, and read the next one on another thread meanwhile.

    Source: 5 runs each in turns, 20,000 rows: 10,500 rows/s; without it 9,500.
    """
    with ThreadPoolExecutor(1, "import-read") as reader:
        reading = reader.submit(next, parts, None)
        while (part := reading.result()) is not None:
            reading = reader.submit(next, parts, None)
            yield part


def _num_bytes(incoming: Incoming) -> int:
    if incoming.document is None or incoming.embedded is None:
        return 0
    return len(incoming.document.text) + incoming.embedded.vectors.nbytes
