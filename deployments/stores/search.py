"""Search: bring the follower up to date, rank in memory, fetch the text of what was found.

A write may come between ranking and fetching and take a hit's text away. Then the search is done
again while the follower and the database are held at one and the same state.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Text, bindparam, cast, select

from deployments.config import RetrieverArgs
from deployments.errors import CollectionNotFound, Conflict, StoreUnavailable
from deployments.stores import schema
from deployments.stores.buckets import WHOLE, Shard
from deployments.stores.changes import Ask, Head, head
from deployments.stores.content import invalid
from deployments.stores.damage import check_chunk, sound_metadata
from deployments.stores.database import Database
from deployments.stores.filters import check_filter
from deployments.stores.follower import Follower
from deployments.stores.followers import Followers
from deployments.stores.highlights import highlights
from deployments.stores.hits import Hit
from deployments.stores.lexical import query_terms
from deployments.stores.rankings import ShardRankings, num_wanted
from deployments.stores.vectors import ready_vector
from deployments.types import Passage, ScoredChunk, SearchRequest

EVENTUAL_AGE_S = 1.0
"""How old the last look at the log may be for an eventual search."""

MAX_REPLACEMENTS = 5
"""How often a collection may be deleted and created again while one search waits for it."""

PAGE = 500

STORED_CHUNKS = (
    select(
        *schema.chunks.c["number", "id", "document_id"],
        schema.documents.c.title,
        *schema.chunks.c["text", "start", "end"],
        cast(schema.documents.c.metadata, Text),
        *schema.chunks.c["vector", "checksum"],
        schema.documents.c.checksum,
    )
    .join(schema.documents)
    .where(
        schema.chunks.c.collection_id == bindparam("collection_id"),
        schema.chunks.c.number.in_(bindparam("numbers", expanding=True)),
    )
)

Query = NDArray[np.float32]
Chunks = list[ScoredChunk]
Rankings = list[list[Hit]]


class Stored(NamedTuple):
    """A row of `STORED_CHUNKS`."""

    number: int
    id: str
    document_id: str
    title: str
    text: str
    start: int
    end: int
    metadata: str
    vector: bytes
    checksum: int
    document_checksum: int

    def sound_metadata(self) -> dict[str, Any]:
        """Return the document's metadata; raises StoreUnavailable when the row is damaged."""
        place = (self.number, self.id, self.document_id, self.start, self.end)
        check_chunk(*place, self.text, self.vector, self.checksum)
        named = (self.document_id, self.title, self.metadata, self.document_checksum)
        return sound_metadata(*named)


class Searcher:
    """Searches every collection of one database; safe to use from many threads."""

    def __init__(self, database: Database, args: RetrieverArgs, shard: Shard = WHOLE) -> None:
        self.followers = Followers(args.max_collections_in_memory, shard)
        self._database = database
        self._args = args

    def search(
        self, request: SearchRequest, query: Query | None, embedding_model: str | None
    ) -> list[ScoredChunk]:
        """Return the best chunks, best first, as of a moment after the call began.

        Args:
            request: what is wanted; `is_eventual` allows a state up to 1 s old.
            query: float32[dim], L2-normalised; None only in lexical mode or with a ready vector.
            embedding_model: which model made `query`.

        Raises:
            CollectionNotFound: no collection has this name.
            InvalidRequest: the filter or the ready vector is none that can be used, or the mode or
                `min_score` needs a query vector.
            Conflict: `query` is another model's.
            StoreUnavailable: the database did not answer; safe to retry.
        """
        _check(request, query)
        rank = partial(self._rank, request, query, embedding_model)
        _, chunks = self._found(request, rank)
        return chunks

    def rankings(
        self, request: SearchRequest, query: Query | None, embedding_model: str | None
    ) -> ShardRankings:
        """Return what this shard adds to a search of all shards, as `search` would find it."""
        _check(request, query)

        def rank(follower: Follower) -> Rankings:
            checked = _checked(follower, request, query, embedding_model)
            limit = num_wanted(request, self._args.candidates)
            return follower.rankings(request, checked, limit=limit)

        rankings, chunks = self._found(request, rank)
        numbers = dict.fromkeys(hit.number for ranking in rankings for hit in ranking)
        return ShardRankings(tuple(map(tuple, rankings)), dict(zip(numbers, chunks, strict=True)))

    def _found(
        self, request: SearchRequest, rank: Callable[[Follower], Rankings]
    ) -> tuple[Rankings, Chunks]:
        """Return rankings, and every chunk in them once, in the order of their first hits."""
        follower = self._follower(request)
        rankings = rank(follower)
        hits = _distinct(rankings)
        if not hits:
            return rankings, []
        chunks = _fetch(self._database.rows, follower, hits, request)
        if len(chunks) == len(hits):
            return rankings, chunks
        with self._pinned(request.collection) as (connection, follower):
            rankings = rank(follower)
            hits = _distinct(rankings)
            chunks = _fetch(connection.execute, follower, hits, request)
        if len(chunks) < len(hits):
            self.followers.drop(request.collection)
            raise StoreUnavailable("the index disagreed with the database and is built again")
        return rankings, chunks

    def _follower(self, request: SearchRequest) -> Follower:
        """Return a follower that has every change committed before the call."""
        now_s = time.monotonic()
        known = self.followers.known(request.collection) if request.is_eventual else None
        if known is not None and now_s - known.checked_at_s < EVENTUAL_AGE_S:
            return known
        head = self._head(request.collection)
        follower = self.followers.current(request.collection, head)
        if follower.sequence < head.sequence:
            with self._pinned(request.collection) as (_, follower):
                pass
        follower.checked_at_s = now_s
        return follower

    @contextmanager
    def _pinned(self, collection: str) -> Iterator[tuple[Connection, Follower]]:
        """Hold a follower, and the database at the state that the follower has."""
        for _ in range(MAX_REPLACEMENTS):
            follower = self.followers.current(collection, self._head(collection))
            with follower.following, self._database.read() as connection:
                now = head(connection.execute, collection)
                if not follower.can_follow(now):
                    self.followers.drop(collection)
                    continue
                follower.follow(connection, now)
                yield connection, follower
                return
        raise StoreUnavailable("the collection is being replaced")

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
            _checked(follower, request, query, embedding_model),
            limit=request.offset + request.top_k,
            depth=max(request.candidates or self._args.candidates, request.top_k),
            rrf_k=self._args.rrf_k,
        )
        return [hits[request.offset :]]


def _checked(
    follower: Follower, request: SearchRequest, query: Query | None, embedding_model: str | None
) -> Query | None:
    """Return the query vector, if there is one, after making sure that it fits the collection."""
    if request.vector is not None:
        return ready_vector(request.vector, follower.dim, "vector")
    if query is not None and (len(query), embedding_model) != (
        follower.dim,
        follower.embedding_model,
    ):
        raise Conflict(f"collection {request.collection!r} was embedded with another model")
    return query


def _distinct(rankings: Rankings) -> list[Hit]:
    """Return the first hit of each chunk."""
    hits: dict[int, Hit] = {}
    for hit in chain.from_iterable(rankings):
        hits.setdefault(hit.number, hit)
    return list(hits.values())


def _check(request: SearchRequest, query: Query | None) -> None:
    if request.filter is not None:
        check_filter(request.filter)
    if request.top_k < 1:
        raise invalid("top_k must be at least 1", "top_k")
    if request.vector is not None:
        if request.mode != "dense":
            raise invalid("a ready vector works in dense mode only", "vector")
        return
    if query is None and request.mode != "lexical":
        raise invalid("only lexical search works without a query vector", "mode")
    if query is None and request.min_score is not None:
        raise invalid("min_score bounds the cosine, which needs a query vector", "min_score")


def _fetch(ask: Ask, follower: Follower, hits: Sequence[Hit], request: SearchRequest) -> Chunks:
    """Return those hits that are still stored, in their order, with what was asked for."""
    terms = frozenset(query_terms(request.query)) if request.has_highlights else frozenset()
    near = range(-request.neighbors, request.neighbors + 1)
    chunks = []
    size = max(1, PAGE // len(near))
    for page in (hits[first : first + size] for first in range(0, len(hits), size)):
        numbers = sorted({hit.number + distance for hit in page for distance in near})
        parameters = {"collection_id": follower.collection_id, "numbers": numbers}
        stored = {row[0]: Stored(*row) for row in ask(STORED_CHUNKS, parameters)}
        for hit in page:
            found = stored.get(hit.number)
            if found is not None:
                around = [stored.get(hit.number + distance) for distance in near]
                chunks.append(_chunk(hit, found, around, terms))
    return chunks


def _chunk(
    hit: Hit, stored: Stored, around: Sequence[Stored | None], terms: frozenset[str]
) -> ScoredChunk:
    others = [one for one in around if one and one.document_id == stored.document_id]
    return ScoredChunk(
        chunk_id=stored.id,
        document_id=stored.document_id,
        title=stored.title,
        text=stored.text,
        start=stored.start,
        end=stored.end,
        score=hit.score,
        cosine=hit.cosine,
        metadata=stored.sound_metadata(),
        before=tuple(_passage(one) for one in others if one.number < stored.number),
        after=tuple(_passage(one) for one in others if one.number > stored.number),
        highlights=highlights(terms, stored.text) if terms else (),
    )


def _passage(stored: Stored) -> Passage:
    return Passage(stored.id, stored.text, stored.start, stored.end)
