"""The Retriever replica: stores documents and searches them.

It keeps nothing that the database does not have, so it may be killed at any instant. It does not
know how vectors are made, nor Ray.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
from deployments.stores.migrations import migrate
from deployments.stores.pepper import pepper
from deployments.stores.rankings import ShardRankings
from deployments.stores.search import Searcher
from deployments.types import (
    CollectionChanges,
    CollectionInfo,
    CollectionSettings,
    Document,
    DocumentInfo,
    EmbeddedText,
    Erasure,
    ErasureScope,
    IndexedDocument,
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

NUM_WRITERS = 2
"""Threads that write: SQLite takes one writer at a time, and readers must not queue behind it."""


@dataclass(frozen=True, slots=True)
class RetrieverStats:
    """What a Retriever replica holds in memory."""

    num_collections: int
    num_chunks: int
    num_vector_bytes: int


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
        address = settings.database
        migrate(address)
        self._database = Database(address, pool_size=NUM_READERS + NUM_WRITERS + 1)
        self._collections = CollectionStore(self._database)
        self._documents = DocumentStore(self._database)
        self._erasures = ErasureStore(self._database, pepper(settings.state_path))
        self._vacuuming = asyncio.Lock()
        self._next_vacuum: asyncio.Task[None] | None = None
        self._searcher = Searcher(self._database, args, shard)
        self._readers = ThreadPoolExecutor(NUM_READERS, "retriever-read")
        self._writers = ThreadPoolExecutor(NUM_WRITERS, "retriever-write")

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
        return await self._read(lambda: self._searcher.search(request, query, embedding_model))

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
        return await self._read(lambda: self._searcher.rankings(request, query, embedding_model))

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
        followers = self._searcher.followers.all()
        return RetrieverStats(
            num_collections=len(followers),
            num_chunks=sum(follower.num_chunks for follower in followers),
            num_vector_bytes=sum(follower.num_bytes for follower in followers),
        )

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


def _query_vector(vectors: Vectors) -> NDArray[np.float32]:
    """Return a query's vector as memory of our own; what comes through Ray cannot be written."""
    if vectors.ndim != 2 or len(vectors) != 1 or not np.isfinite(vectors).all():
        raise EngineFailed("the embedding engine returned an unusable query vector")
    return np.array(vectors[0], dtype=np.float32)
