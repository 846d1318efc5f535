"""Search: bring the follower up to date, rank in memory, fetch the text of what was found.

A write may come between ranking and fetching and take a hit's text away. Then the search is done
again while the follower and the database are held at one and the same state.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Text, bindparam, cast, select

from deployments.config import RetrieverArgs
from deployments.errors import CollectionNotFound, Conflict, StoreUnavailable
from deployments.stores import schema
from deployments.stores.changes import Ask, Head, head
from deployments.stores.content import invalid
from deployments.stores.database import Database
from deployments.stores.filters import check_filter
from deployments.stores.follower import Follower
from deployments.stores.followers import Followers
from deployments.stores.hits import Hit
from deployments.types import ScoredChunk, SearchRequest

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
    )
    .join(schema.documents)
    .where(
        schema.chunks.c.collection_id == bindparam("collection_id"),
        schema.chunks.c.number.in_(bindparam("numbers", expanding=True)),
    )
)

Query = NDArray[np.float32]


class Searcher:
    """Searches every collection of one database; safe to use from many threads."""

    def __init__(self, database: Database, args: RetrieverArgs) -> None:
        self.followers = Followers(args.max_collections_in_memory)
        self._database = database
        self._args = args

    def search(
        self, request: SearchRequest, query: Query | None, embedding_model: str | None
    ) -> list[ScoredChunk]:
        """Return the best chunks, best first, as of a moment after the call began.

        Args:
            request: what is wanted; `is_eventual` allows a state up to 1 s old.
            query: float32[dim], L2-normalised; None only in lexical mode.
            embedding_model: which model made `query`.

        Raises:
            CollectionNotFound: no collection has this name.
            InvalidRequest: a filter is given, or the mode or `min_score` needs a query vector.
            Conflict: `query` is another model's.
            StoreUnavailable: the database did not answer; safe to retry.
        """
        _check(request, query)
        follower = self._follower(request)
        hits = self._rank(follower, request, query, embedding_model)
        if not hits:
            return []
        chunks = _fetch(self._database.rows, follower, hits)
        if len(chunks) == len(hits):
            return chunks
        with self._pinned(request.collection) as (connection, follower):
            hits = self._rank(follower, request, query, embedding_model)
            chunks = _fetch(connection.execute, follower, hits)
        if len(chunks) < len(hits):
            self.followers.drop(request.collection)
            raise StoreUnavailable("the index disagreed with the database and is built again")
        return chunks

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
        follower: Follower,
        request: SearchRequest,
        query: Query | None,
        embedding_model: str | None,
    ) -> list[Hit]:
        if query is not None and (len(query), embedding_model) != (
            follower.dim,
            follower.embedding_model,
        ):
            raise Conflict(f"collection {request.collection!r} was embedded with another model")
        hits = follower.search(
            request,
            query,
            limit=request.offset + request.top_k,
            depth=max(request.candidates or self._args.candidates, request.top_k),
            rrf_k=self._args.rrf_k,
        )
        return hits[request.offset :]


def _check(request: SearchRequest, query: Query | None) -> None:
    if request.filter is not None:
        check_filter(request.filter)
    if request.top_k < 1:
        raise invalid("top_k must be at least 1", "top_k")
    if query is None and request.mode != "lexical":
        raise invalid("only lexical search works without a query vector", "mode")
    if query is None and request.min_score is not None:
        raise invalid("min_score bounds the cosine, which needs a query vector", "min_score")


def _fetch(ask: Ask, follower: Follower, hits: Sequence[Hit]) -> list[ScoredChunk]:
    """Return those hits that are still stored, in their order."""
    found: dict[int, ScoredChunk] = {}
    for first in range(0, len(hits), PAGE):
        page = {hit.number: hit for hit in hits[first : first + PAGE]}
        parameters = {"collection_id": follower.collection_id, "numbers": list(page)}
        for number, *fields, metadata in ask(STORED_CHUNKS, parameters):
            chunk_id, document_id, title, text, start, end = fields
            found[number] = ScoredChunk(
                chunk_id=chunk_id,
                document_id=document_id,
                title=title,
                text=text,
                start=start,
                end=end,
                score=page[number].score,
                cosine=page[number].cosine,
                metadata=json.loads(metadata),
            )
    return [found[hit.number] for hit in hits if hit.number in found]
