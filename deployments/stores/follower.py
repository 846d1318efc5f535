"""One collection in memory, following its log: vectors, terms and nothing of the text.

A follower that fails in the middle of a change is broken for good; its owner drops it and builds
another from the log.
"""

import math
import threading

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from deployments.stores.changes import Head, changes_since
from deployments.stores.dense import DenseIndex
from deployments.stores.hits import Hit, fuse
from deployments.stores.lexical import LexicalIndex
from deployments.stores.locks import ReadWriteLock
from deployments.types import SearchMode

Query = NDArray[np.float32]


class Follower:
    """A collection's indexes as of one sequence number; many threads may search and follow."""

    def __init__(self, head: Head) -> None:
        """Start empty.

        Args:
            head: which collection, and what its vectors are.
        """
        self.collection_id = head.id
        self.embedding_model = head.embedding_model
        self.dim = head.dim
        self.following = threading.Lock()
        """Held by the thread that applies changes; whoever holds it sees no other apply any."""
        self.is_broken = False
        self.checked_at_s = -math.inf
        """When it was last known to have every change, on the monotonic clock."""
        self._sequence = 0
        self._indexes = ReadWriteLock()
        self._dense = DenseIndex(head.dim)
        self._lexical = LexicalIndex()

    @property
    def sequence(self) -> int:
        """Return the sequence number up to which every change shows."""
        return self._sequence

    @property
    def num_chunks(self) -> int:
        """Return how many chunks a search can find."""
        return len(self._dense)

    @property
    def num_bytes(self) -> int:
        """Return the bytes of the vectors held."""
        return self._dense.num_bytes

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
        for changes in changes_since(connection, head, self._sequence):
            self._lexical.stage(changes.numbers, changes.texts, changes.removed)
            with self._indexes.writing():
                self._dense.stage(changes.numbers, changes.vectors)
            added.append(changes.numbers)
            removed.append(changes.removed)
        self._lexical.commit()
        with self._indexes.writing():
            self._dense.show(_joined(added))
            self._dense.hide(_joined(removed))
            self._dense.compact()
            self._lexical.show()
            self._sequence = head.sequence

    def search(
        self,
        mode: SearchMode,
        text: str,
        query: Query | None,
        *,
        limit: int,
        min_score: float | None,
        candidates: int,
        rrf_k: int,
    ) -> list[Hit]:
        """Return the best hits of one state of the collection, best first.

        Args:
            mode: which indexes are asked.
            text: what the lexical index looks for.
            query: float32[dim]; None only for lexical.
            limit: how many hits are wanted.
            min_score: the least cosine of a hit; needs `query`.
            candidates: how many hits of each index are fused in hybrid mode, or `limit` if more.
            rrf_k: the constant of rank fusion.
        """
        with self._indexes.reading():
            if mode == "dense":
                return self._nearest(query, limit, min_score)
            if mode == "lexical":
                return self._matching(text, query, limit, min_score)
            depth = max(limit, candidates)
            rankings = [
                self._nearest(query, depth, min_score),
                self._matching(text, query, depth, min_score),
            ]
            return fuse(rankings, rrf_k)[:limit]

    def _nearest(self, query: Query | None, limit: int, min_score: float | None) -> list[Hit]:
        assert query is not None
        hits = self._dense.search(query, limit)
        return hits if min_score is None else [hit for hit in hits if hit.score >= min_score]

    def _matching(
        self, text: str, query: Query | None, limit: int, min_score: float | None
    ) -> list[Hit]:
        """Return lexical hits; the bound on the cosine may need more of them looked at."""
        size = limit
        while True:
            hits = self._lexical.search(text, size)
            if query is not None:
                numbers = np.array([hit.number for hit in hits], dtype=np.int64)
                cosines = self._dense.cosines(query, numbers)
                pairs = zip(hits, cosines, strict=True)
                found = [Hit(hit.number, hit.score, cosine) for hit, cosine in pairs]
            else:
                found = hits
            if min_score is not None:
                found = [hit for hit in found if hit.cosine is not None and hit.cosine >= min_score]
            if len(found) >= limit or len(hits) < size:
                return found[:limit]
            size *= 4


def _joined(arrays: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.empty(0, dtype=np.int64), *arrays])
