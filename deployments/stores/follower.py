"""One collection in memory, following its log: vectors, terms, metadata, not the text.

A follower that fails in the middle of a change is broken for good; its owner drops it and builds
another from the log.
"""

import math
import threading

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from deployments.stores.buckets import WHOLE, Shard
from deployments.stores.changes import Head, changes_since
from deployments.stores.hits import Hit
from deployments.stores.indexes import Indexes, Query
from deployments.stores.locks import ReadWriteLock
from deployments.types import SearchRequest


class Follower:
    """A collection's indexes as of one sequence number; many threads may search and follow."""

    def __init__(self, head: Head, shard: Shard = WHOLE) -> None:
        """Start empty.

        Args:
            head: which collection, and what its vectors are.
            shard: which part of it.
        """
        self._shard = shard
        self.collection_id = head.id
        self.embedding_model = head.embedding_model
        self.dim = head.dim
        self.following = threading.Lock()
        """Held by the thread that applies changes; whoever holds it sees no other apply any."""
        self.is_broken = False
        self.checked_at_s = -math.inf
        """When it was last known to have every change, on the monotonic clock."""
        self._sequence = 0
        self._lock = ReadWriteLock()
        self._indexes = Indexes(head.dim)

    @property
    def sequence(self) -> int:
        """Return the sequence number up to which every change shows."""
        return self._sequence

    @property
    def num_chunks(self) -> int:
        """Return how many chunks a search can find."""
        return len(self._indexes.dense)

    @property
    def num_bytes(self) -> int:
        """Return the bytes of the vectors held."""
        return self._indexes.dense.num_bytes

    def can_follow(self, head: Head) -> bool:
        """Return whether the log still has what happened since; False: start a new follower."""
        is_same = self.collection_id == head.id and not self.is_broken
        return is_same and (self._sequence == 0 or self._sequence >= head.log_start)

    def follow(self, connection: Connection, head: Head) -> None:
        """Apply everything up to `head`, all or nothing.

        The caller holds `following` and has asked `can_follow`.

        Args:
            connection: the read transaction in which `head` was read.
            head: where this collection's log stands.
        """
        assert self.can_follow(head)
        if self._sequence >= head.sequence:
            return
        try:
            self._apply(connection, head)
        except BaseException:
            self.is_broken = True
            raise

    def _apply(self, connection: Connection, head: Head) -> None:
        added, removed = [], []
        for changes in changes_since(connection, head, self._sequence, self._shard):
            self._indexes.lexical.stage(changes.numbers, changes.texts, changes.removed)
            with self._lock.writing():
                self._indexes.stage_rows(changes)
            added.append(changes.numbers)
            removed.append(changes.removed)
        self._indexes.lexical.commit()
        with self._lock.writing():
            self._indexes.show(_joined(added), _joined(removed))
            self._sequence = head.sequence

    def search(
        self, request: SearchRequest, query: Query | None, *, limit: int, depth: int, rrf_k: int
    ) -> list[Hit]:
        """Return the best hits of one state of the collection; see `Indexes.search`."""
        with self._lock.reading():
            return self._indexes.search(request, query, limit=limit, depth=depth, rrf_k=rrf_k)

    def rankings(
        self, request: SearchRequest, query: Query | None, *, limit: int
    ) -> list[list[Hit]]:
        """Return rankings of one state of the collection; see `Indexes.rankings`."""
        with self._lock.reading():
            return self._indexes.rankings(request, query, limit=limit)


def _joined(arrays: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.empty(0, dtype=np.int64), *arrays])
