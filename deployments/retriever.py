"""The Retriever replica: stores documents and searches them.

It keeps nothing that the database does not have, so it may be killed at any instant. It does not
know how vectors are made, nor Ray.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from deployments.config import RetrieverArgs, Settings
from deployments.database_replica import DatabaseReplica
from deployments.errors import EngineFailed
from deployments.stores.buckets import WHOLE, Shard
from deployments.stores.loads import Loads
from deployments.stores.maintenance import Maintenance
from deployments.stores.rankings import ShardRankings
from deployments.stores.search import NotLoaded, Searcher
from deployments.types import IndexStats, ScoredChunk, SearchRequest, Vectors

T = TypeVar("T")

NUM_LOADERS = 4
"""Threads that bring collections into memory; as many large ones at once."""

NUM_PURGERS = 4
"""Threads that let go of what was erased; a large collection takes one for minutes."""

MAX_TRIES = 3
"""How often a search waits until its collection is loaded, before it loads it itself."""


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


class Retriever(DatabaseReplica):
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
        super().__init__(settings, NUM_LOADERS + NUM_PURGERS)
        self._searcher = Searcher(self._database, args, shard, settings.state_path)
        self._maintenance = Maintenance(self._searcher, self._database)
        self._loaders = ThreadPoolExecutor(NUM_LOADERS, "retriever-load")
        self._purgers = ThreadPoolExecutor(NUM_PURGERS, "retriever-purge")
        self._loads = Loads(self._searcher.load, self._loaders)
        self._maintenance.start()

    def close(self) -> None:
        """Stop the maintenance, and remove this replica's working files."""
        self._maintenance.close()
        super().close()
        for threads in (self._loaders, self._purgers):
            threads.shutdown(wait=False, cancel_futures=True)
        self._searcher.close()

    def __del__(self) -> None:
        """Close; Serve calls this when it stops a replica."""
        if hasattr(self, "_loads"):  # not when the database did not answer
            self.close()

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
        loop = asyncio.get_running_loop()
        for collection_id in collection_ids:
            await loop.run_in_executor(self._purgers, self._maintenance.purge, collection_id)

    async def index_stats(self, name: str) -> IndexStats | None:
        """Return what this replica holds of a collection's vectors; None: not in memory."""
        follower = self._searcher.followers.known(name)
        return None if follower is None else await self._read(follower.index_stats)

    async def _when_loaded(self, collection: str, search: Callable[..., T]) -> T:
        """Search; while the collection is not in memory, wait without a thread until it is."""
        for _ in range(MAX_TRIES):
            try:
                return await self._read(partial(search, may_load=False))
            except NotLoaded:
                await self._loads.load(collection)
        loop = asyncio.get_running_loop()  # it is dropped as soon as it is loaded
        return await loop.run_in_executor(self._loaders, search)


def _query_vector(vectors: Vectors) -> NDArray[np.float32]:
    """Return a query's vector as memory of our own; what comes through Ray cannot be written."""
    if vectors.ndim != 2 or len(vectors) != 1 or not np.isfinite(vectors).all():
        raise EngineFailed("the embedding engine returned an unusable query vector")
    return np.array(vectors[0], dtype=np.float32)
