"""The Retriever replica: stores documents and searches them.

It keeps nothing that the database does not have, so it may be killed at any instant. It does not
know how vectors are made, nor Ray.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from deployments.config import RetrieverArgs, Settings
from deployments.errors import EngineFailed
from deployments.stores.buckets import WHOLE, Shard
from deployments.stores.collections import CollectionStore
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.erasures import ErasureStore
from deployments.stores.loads import Loads
from deployments.stores.locations import locations_of
from deployments.stores.maintenance import Maintenance
from deployments.stores.migrations import migrate
from deployments.stores.mover import NUM_MOVERS, Mover
from deployments.stores.parquet_rows import Limits
from deployments.stores.pepper import pepper
from deployments.stores.rankings import ShardRankings
from deployments.stores.search import NotLoaded, Searcher
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
    IndexStats,
    Metric,
    Place,
    ScoredChunk,
    SearchRequest,
    StoredDocument,
    Vectors,
    VectorSpace,
)

T = TypeVar("T")

NUM_READERS = 4
"""Threads that search and read: FAISS, tantivy and SQLite all release the interpreter's lock."""

NUM_LOADERS = 4
"""Threads that bring collections into memory; as many large ones at once."""

MAX_TRIES = 3
"""How often a search waits until its collection is loaded, before it loads it itself."""

NUM_WRITERS = 2
"""Threads that write: SQLite takes one writer at a time, and readers must not queue behind it."""


@dataclass(frozen=True, slots=True)
class RetrieverStats:
    """What a Retriever replica holds in memory."""

    num_collections: int
    num_chunks: int
    num_vector_bytes: int
    num_bytes: int = 0
    """Of all indexes: vectors, words (files that are mapped included) and metadata."""
    is_over_budget: bool = False
    """One collection alone takes more than the budget."""
    num_evicted: int = 0
    num_snapshots_saved: int = 0
    num_snapshots_loaded: int = 0
    num_snapshots_refused: int = 0


class Retriever:
    """A replica over the database of this host's settings; every replica answers alike."""

    def __init__(self, args: RetrieverArgs, shard: Shard = WHOLE) -> None:
        """Bring the database up to date; indexes are built when a collection is first searched.

        Args:
            args: what the YAML says.
            shard: which part of every collection this replica searches.

        Raises:
            StoreUnavailable: the database did not answer; safe to retry.
        """
        settings = Settings()
        migrate(settings.database)
        num_threads = NUM_READERS + NUM_WRITERS + NUM_LOADERS + NUM_MOVERS
        self._database = Database(settings.database, pool_size=num_threads + 2)
        self._collections = CollectionStore(self._database)
        self._documents = DocumentStore(self._database)
        secret = pepper(settings.state_path)
        self._erasures = ErasureStore(self._database, secret)
        self._vacuuming = asyncio.Lock()
        self._next_vacuum: asyncio.Task[None] | None = None
        self._searcher = Searcher(self._database, args, shard, settings.state_path)
        self._maintenance = Maintenance(self._searcher, self._database)
        self._readers = ThreadPoolExecutor(NUM_READERS, "retriever-read")
        self._writers = ThreadPoolExecutor(NUM_WRITERS, "retriever-write")
        self._loaders = ThreadPoolExecutor(NUM_LOADERS, "retriever-load")
        locations = locations_of(settings.transfer_roots)
        transfers = Transfers(self._database, locations, Suppressions(secret))
        self._mover = Mover(transfers)
        self._loads = Loads(self._searcher.load, self._loaders)
        self._maintenance.start()

    def close(self) -> None:
        """Stop the maintenance, and remove this replica's working files."""
        self._maintenance.close()
        for threads in (self._readers, self._writers, self._loaders):
            threads.shutdown(wait=False, cancel_futures=True)
        self._searcher.close()

    def __del__(self) -> None:
        """Close; Serve calls this when it stops a replica."""
        if hasattr(self, "_loads"):  # not when the database did not answer
            self.close()

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

    async def search(
        self,
        request: SearchRequest,
        embedded_query: tuple[Vectors, list[int]] | None,
        embedding_model: str | None,
    ) -> list[ScoredChunk]:
        """Return matching chunks, best first; see `Searcher.search`.

        Args:
            request: what is wanted.
            embedded_query: what the Embedder returns for `[request.query]`; None where the request
                is lexical or brings its own vector.
            embedding_model: which model embedded the query.
        """
        query = None
        if embedded_query is not None:
            query = _query_vector(embedded_query[0])
        search = partial(self._searcher.search, request, query, embedding_model)
        return await self._when_loaded(request.collection, search)

    async def rankings(
        self,
        request: SearchRequest,
        embedded_query: tuple[Vectors, list[int]] | None,
        embedding_model: str | None,
    ) -> ShardRankings:
        """Return what this shard adds to a search; see `Searcher.rankings`. As `search`."""
        query = None
        if embedded_query is not None:
            query = _query_vector(embedded_query[0])
        rank = partial(self._searcher.rankings, request, query, embedding_model)
        return await self._when_loaded(request.collection, rank)

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

    async def stats(self) -> RetrieverStats:
        """Return what this replica holds in memory."""
        held, snapshots = self._searcher.followers, self._searcher.snapshots
        followers = held.all()
        assert snapshots is not None
        return RetrieverStats(
            num_collections=len(followers),
            num_chunks=sum(follower.num_chunks for follower in followers),
            num_vector_bytes=sum(follower.num_vector_bytes for follower in followers),
            num_bytes=held.num_bytes,
            is_over_budget=held.is_over_budget,
            num_evicted=held.num_evicted,
            num_snapshots_saved=snapshots.num_saved,
            num_snapshots_loaded=snapshots.num_loaded,
            num_snapshots_refused=snapshots.num_refused,
        )

    async def purge(self, collection_ids: list[str]) -> None:
        """Let go of everything older than these collections' epochs; see `Maintenance.purge`."""
        for collection_id in collection_ids:  # not in the threads that others wait for
            await asyncio.to_thread(self._maintenance.purge, collection_id)

    async def index_stats(self, name: str) -> IndexStats | None:
        """Return what this replica holds of a collection's vectors; None: not in memory."""
        follower = self._searcher.followers.known(name)
        return None if follower is None else await self._read(follower.index_stats)

    async def check_health(self) -> None:
        """Raise StoreUnavailable unless the database answers."""
        await self._read(self._database.check)

    async def _when_loaded(self, collection: str, search: Callable[..., T]) -> T:
        """Search; while the collection is not in memory, wait without a thread until it is."""
        for _ in range(MAX_TRIES):
            try:
                return await self._read(partial(search, may_load=False))
            except NotLoaded:
                await self._loads.load(collection)
        loop = asyncio.get_running_loop()  # it is dropped as soon as it is loaded
        return await loop.run_in_executor(self._loaders, search)

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


def _query_vector(vectors: Vectors) -> NDArray[np.float32]:
    """Return a query's vector as memory of our own; what comes through Ray cannot be written."""
    if vectors.ndim != 2 or len(vectors) != 1 or not np.isfinite(vectors).all():
        raise EngineFailed("the embedding engine returned an unusable query vector")
    return np.array(vectors[0], dtype=np.float32)
