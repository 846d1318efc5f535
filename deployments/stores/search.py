"""Search: bring the follower up to date, rank in memory, fetch the text of what was found.

A write may come between ranking and fetching and take a hit's text away. Then the search is done
again while the follower and the database are held at one and the same state.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from sqlalchemy import Connection

from deployments.config import RetrieverArgs
from deployments.errors import CollectionNotFound, StoreUnavailable
from deployments.stores.buckets import WHOLE, Shard
from deployments.stores.changes import Head, head, totals
from deployments.stores.database import Database
from deployments.stores.fetching import fetch
from deployments.stores.follower import Disagreement, Follower, Unwanted
from deployments.stores.followers import Followers
from deployments.stores.hits import Hit, distinct
from deployments.stores.indexes import Query
from deployments.stores.queries import check_search, checked_query
from deployments.stores.rankings import ShardRankings, num_wanted
from deployments.stores.snapshots import Snapshots
from deployments.stores.workspace import Workspace
from deployments.types import ScoredChunk, SearchRequest

EVENTUAL_AGE_S = 1.0
"""How old the last look at the log may be for an eventual search."""

MAX_REPLACEMENTS = 5
"""How often a collection may be deleted and created again while one search waits for it."""

PATIENCE_S = 0.25
"""How long a search waits for another one to follow the log, unless it may load by itself."""

Chunks = list[ScoredChunk]
Rankings = list[list[Hit]]


class NotLoaded(Exception):
    """The collection is not in memory, or far behind; another thread should load it."""


class Searcher:
    """Searches every collection of one database; safe to use from many threads."""

    def __init__(
        self,
        database: Database,
        args: RetrieverArgs,
        shard: Shard = WHOLE,
        state: Path | None = None,
    ) -> None:
        """Start with nothing in memory.

        Args:
            database: of the collections.
            args: how they are indexed.
            shard: which part of each.
            state: the state folder; None: indexes are in memory only, and snapshots unknown.
        """
        workspace = Workspace(state / "replicas") if state is not None else None
        self.followers = Followers(
            args.max_collections_in_memory,
            shard,
            max_bytes=args.memory_budget_mb * 1024 * 1024,
            workspace=workspace,
        )
        self.snapshots: Snapshots | None = None
        if state is not None and workspace is not None:
            self.snapshots = Snapshots(state / "snapshots", workspace, shard)
        self.workspace = workspace
        self._database = database
        self._args = args
        self._shard = shard

    def search(
        self,
        request: SearchRequest,
        query: Query | None,
        embedding_model: str | None,
        *,
        may_load: bool = True,
    ) -> list[ScoredChunk]:
        """Return the best chunks, best first, as of a moment after the call began.

        Args:
            request: what is wanted; `is_eventual` allows a state up to 1 s old.
            query: float32[dim], L2-normalised where the metric is `cosine`; None only in lexical
                mode or with a ready vector.
            embedding_model: which model made `query`.
            may_load: whether to load the collection, or to wait until another thread has.

        Raises:
            NotLoaded: it would have to.
            CollectionNotFound: no collection has this name.
            InvalidRequest: the filter or the ready vector is none that can be used, or the mode or
                `min_score` needs a query vector.
            Conflict: `query` is another model's.
            StoreUnavailable: the database did not answer; safe to retry.
        """
        check_search(request, query)
        rank = partial(self._rank, request, query, embedding_model)
        _, chunks = self._found(request, rank, may_load)
        return chunks

    def rankings(
        self,
        request: SearchRequest,
        query: Query | None,
        embedding_model: str | None,
        *,
        may_load: bool = True,
    ) -> ShardRankings:
        """Return what this shard adds to a search of all shards, as `search` would find it."""
        check_search(request, query)

        def rank(follower: Follower) -> Rankings:
            checked = checked_query(follower, request, query, embedding_model)
            limit = num_wanted(request, self._args.candidates)
            return follower.rankings(request, checked, limit=limit)

        rankings, chunks = self._found(request, rank, may_load)
        numbers = dict.fromkeys(hit.number for ranking in rankings for hit in ranking)
        return ShardRankings(tuple(map(tuple, rankings)), dict(zip(numbers, chunks, strict=True)))

    def _found(
        self, request: SearchRequest, rank: Callable[[Follower], Rankings], may_load: bool
    ) -> tuple[Rankings, Chunks]:
        """Return rankings, and every chunk in them once, in the order of their first hits."""
        follower = self._follower(request, may_load)
        rankings = rank(follower)
        hits = distinct(rankings)
        if not hits:
            return rankings, []
        chunks = fetch(self._database.rows, follower, hits, request)
        if len(chunks) == len(hits):
            return rankings, chunks
        with self._pinned(request.collection) as (connection, follower):
            rankings = rank(follower)
            hits = distinct(rankings)
            chunks = fetch(connection.execute, follower, hits, request)
        if len(chunks) < len(hits):
            self.followers.drop(request.collection)
            raise StoreUnavailable("the index disagreed with the database and is built again")
        return rankings, chunks

    def close(self) -> None:
        """Remove the working files; what is being searched stays readable."""
        if self.workspace is not None:
            self.workspace.close()

    def load(self, collection: str) -> None:
        """Bring a collection into memory and up to date."""
        with self._pinned(collection):
            return

    def _follower(self, request: SearchRequest, may_load: bool) -> Follower:
        """Return a follower that has every change committed before the call."""
        now_s = time.monotonic()
        known = self.followers.known(request.collection) if request.is_eventual else None
        if known is not None and now_s - known.checked_at_s < EVENTUAL_AGE_S:
            return known
        head = self._head(request.collection)
        follower = self.followers.current(request.collection, head)
        if follower.sequence < head.sequence:
            if not may_load and not _is_ready(follower):
                raise NotLoaded
            with self._pinned(request.collection) as (_, follower):
                pass
        follower.checked_at_s = now_s
        return follower

    @contextmanager
    def _pinned(self, collection: str) -> Iterator[tuple[Connection, Follower]]:
        """Hold a follower, and the database at the state that the follower has."""
        for _ in range(MAX_REPLACEMENTS):
            follower = self.followers.current(collection, self._head(collection))
            with follower.following:
                is_restored = self._restored(follower, collection)
                with self._database.read() as connection:
                    now = head(connection.execute, collection)
                    if not follower.can_follow(now):
                        self.followers.drop(collection, follower)
                        continue
                    try:
                        follower.follow(connection, now)
                    except Disagreement:  # it is broken, and the next is made of the log alone
                        if is_restored and self.snapshots is not None:
                            self.snapshots.refuse(follower)
                        continue
                    except Unwanted:  # an erasure let go of it meanwhile
                        self.followers.drop(collection, follower)
                        continue
                    if is_restored and not self._is_true(connection, follower, now):
                        continue
                    self.followers.measured(collection, follower)
                    yield connection, follower
                    return
        raise StoreUnavailable("the collection is being replaced")

    def _restored(self, follower: Follower, collection: str) -> bool:
        """Give an empty follower a snapshot's indexes; return whether there was one."""
        if follower.sequence > 0 or self.snapshots is None:
            return False
        return self.snapshots.restore(follower, self._head(collection))

    def _is_true(self, connection: Connection, follower: Follower, now: Head) -> bool:
        """Return whether a follower holds the chunks that the database does; if not, drop it.

        Another database may have been restored under the same ids since the snapshot was written.
        """
        assert self.snapshots is not None
        if follower.totals() == totals(connection, now, self._shard):
            return True
        self.snapshots.refuse(follower)
        follower.is_broken = True
        return False

    def _head(self, collection: str) -> Head:
        try:
            return head(self._database.rows, collection)
        except CollectionNotFound:
            self.followers.drop(collection)
            raise

    def _rank(
        self,
        request: SearchRequest,
        query: Query | None,
        embedding_model: str | None,
        follower: Follower,
    ) -> Rankings:
        hits = follower.search(
            request,
            checked_query(follower, request, query, embedding_model),
            limit=request.offset + request.top_k,
            depth=max(request.candidates or self._args.candidates, request.top_k),
            rrf_k=self._args.rrf_k,
        )
        return [hits[request.offset :]]


def _is_ready(follower: Follower) -> bool:
    """Return whether a follower has been loaded, and is not busy with a large change."""
    if follower.sequence == 0 or not follower.following.acquire(timeout=PATIENCE_S):
        return False
    follower.following.release()
    return True
