"""What a replica over the database does with it alone: store, list, move, erase.

Every replica answers alike, whatever it searches. It does not know indexes, nor how vectors are
made, nor Ray.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import TypeVar

from deployments.config import Settings
from deployments.discretion import be_discreet
from deployments.errors import EngineFailed
from deployments.stores.collections import CollectionStore
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.erasures import ErasureStore
from deployments.stores.locations import locations_of
from deployments.stores.migrations import migrate
from deployments.stores.mover import NUM_MOVERS, Mover
from deployments.stores.parquet_rows import Limits
from deployments.stores.pepper import pepper
from deployments.stores.suppressions import Suppressions
from deployments.stores.transfers import Transfers
from deployments.types import (
    CollectionChanges,
    CollectionInfo,
    CollectionSettings,
    Document,
    DocumentInfo,
    EmbeddedText,
    Erasure,
    ErasureScope,
    Exported,
    Imported,
    IndexedDocument,
    Metric,
    Place,
    StoredDocument,
    VectorSpace,
)

T = TypeVar("T")

NUM_READERS = 4
"""Threads that search and read: FAISS, tantivy and SQLite all release the interpreter's lock."""

NUM_WRITERS = 2
"""Threads that write: SQLite takes one writer at a time, and readers must not queue behind it."""


class DatabaseReplica:
    """Works on threads of its own, so that nobody's reads queue behind writes."""

    def __init__(self, settings: Settings, num_other_threads: int) -> None:
        """Bring the database up to date.

        Args:
            settings: of this host.
            num_other_threads: how many threads of a subclass use the database.

        Raises:
            StoreUnavailable: the database did not answer; safe to retry.
        """
        be_discreet()
        migrate(settings.database)
        num_threads = NUM_READERS + NUM_WRITERS + NUM_MOVERS + num_other_threads
        self._database = Database(settings.database, pool_size=num_threads + 2)
        self._collections = CollectionStore(self._database)
        self._documents = DocumentStore(self._database)
        secret = pepper(settings.state_path)
        self._erasures = ErasureStore(self._database, secret)
        self._vacuuming = asyncio.Lock()
        self._next_vacuum: asyncio.Task[None] | None = None
        self._readers = ThreadPoolExecutor(NUM_READERS, "retriever-read")
        self._writers = ThreadPoolExecutor(NUM_WRITERS, "retriever-write")
        locations = locations_of(settings.transfer_roots)
        self._mover = Mover(Transfers(self._database, locations, Suppressions(secret)))

    def close(self) -> None:
        """Take up no more work."""
        for threads in (self._readers, self._writers):
            threads.shutdown(wait=False, cancel_futures=True)

    async def upsert(
        self,
        collection: str,
        documents: list[Document],
        embedded: list[EmbeddedText],
        embedding_model: str,
        metric: Metric | None = None,
        may_create: bool = True,
    ) -> list[IndexedDocument]:
        """Store documents, all or none; see `DocumentStore.upsert`.

        Args:
            collection: the collection's path.
            documents: some of which may bring their own vectors.
            embedded: for each of the others its segments and vectors, in order.
            embedding_model: which model made the vectors.
            metric: what the vectors are made for; None: for any.
            may_create: False where the collection is known to exist.
        """
        complete = _complete(documents, embedded)
        return await self._write(
            lambda: self._documents.upsert(
                collection, embedding_model, documents, complete, metric, may_create
            )
        )

    async def collections(self, tenant: str | None = None) -> list[CollectionInfo]:
        """Return every collection of a tenant, or of all, by name."""
        return await self._read(lambda: self._collections.list(tenant))

    async def collection(self, name: str) -> CollectionInfo:
        """Return one collection; raises CollectionNotFound."""
        return await self._read(lambda: self._collections.get(name))

    async def space(self, name: str) -> VectorSpace:
        """Return what a collection's vectors are; raises CollectionNotFound."""
        return await self._read(lambda: self._collections.space(name))

    async def update_collection(self, name: str, changes: CollectionChanges) -> CollectionInfo:
        """Change a collection's settings, and return it; raises CollectionNotFound."""
        return await self._write(lambda: self._collections.update(name, changes))

    async def create_collection(self, name: str, settings: CollectionSettings) -> CollectionInfo:
        """Create an empty collection; raises Conflict when the name is taken."""
        return await self._write(lambda: self._collections.create(name, settings))

    async def delete_collection(self, name: str) -> None:
        """Delete a collection with all its documents; raises CollectionNotFound."""
        await self._write(lambda: self._collections.delete(name))

    async def documents(self, collection: str, limit: int, after: str) -> list[DocumentInfo]:
        """Return a page of a collection's documents; raises CollectionNotFound."""
        return await self._read(lambda: self._documents.page(collection, limit, after))

    async def document(self, collection: str, document_id: str) -> StoredDocument:
        """Return a stored document; raises CollectionNotFound or DocumentNotFound."""
        return await self._read(lambda: self._documents.get(collection, document_id))

    async def delete_document(self, collection: str, document_id: str) -> None:
        """Delete a document; raises CollectionNotFound or DocumentNotFound."""
        await self._write(lambda: self._documents.delete(collection, document_id))

    async def export_collection(self, collection: str) -> AsyncGenerator[bytes]:
        """Yield a Parquet file with one state of a collection, in pieces; see `Export.pieces`."""
        async with aclosing(self._mover.pieces(collection)) as pieces:
            async for piece in pieces:
                yield piece

    async def export_to(self, collection: str, uri: str, timeout_s: float) -> Exported:
        """Write a collection to a new file below a root; see `Transfers.export_to`."""
        return await self._mover.export_to(collection, uri, timeout_s)

    async def import_collection(
        self, collection: str, source: bytes | str, max_document_bytes: int, timeout_s: float
    ) -> Imported:
        """Store the rows of a Parquet file, or of that at a URI; see `Transfers.import_from`."""
        limits = Limits(max_document_bytes)
        return await self._mover.import_from(collection, source, limits, timeout_s)

    async def erase(self, scope: ErasureScope) -> Erasure:
        """Delete from the database, and return the receipt; see `ErasureStore.erase`."""
        return await self._write(lambda: self._erasures.erase(scope))

    async def erasure(self, tenant: str, erasure_id: str) -> Erasure:
        """Return a receipt; raises NotFound."""
        return await self._read(lambda: self._erasures.get(tenant, erasure_id))

    async def incomplete_erasures(self) -> list[Erasure]:
        """Return the erasures that have a place left to clean."""
        return await self._read(self._erasures.incomplete)

    async def mark_clean(self, erasure_id: str, place: Place) -> Erasure:
        """Note in a receipt that a place is clean."""
        return await self._write(lambda: self._erasures.mark(erasure_id, place))

    async def vacuum(self) -> None:
        """Clean the database's files; callers that come during one run share the next."""
        if self._next_vacuum is None:
            self._next_vacuum = asyncio.ensure_future(self._vacuum())
        await asyncio.shield(self._next_vacuum)

    async def _vacuum(self) -> None:
        async with self._vacuuming:
            self._next_vacuum = None
            await asyncio.to_thread(self._database.vacuum)

    async def check_health(self) -> None:
        """Raise StoreUnavailable unless the database answers."""
        await self._read(self._database.check)

    async def _read(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    async def _write(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writers, work)


def _complete(documents: list[Document], embedded: list[EmbeddedText]) -> list[EmbeddedText]:
    made = iter(embedded)
    complete = [
        document.embedded if document.embedded is not None else next(made, None)
        for document in documents
    ]
    whole = [one for one in complete if one is not None]
    if len(whole) < len(documents) or next(made, None) is not None:
        raise EngineFailed("the embedding engine returned too many or too few vectors")
    return whole
