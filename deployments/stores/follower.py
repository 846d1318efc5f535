"""One collection in memory, following its log: vectors, terms, metadata, not the text.

A follower that fails in the middle of a change is broken for good; its owner drops it and builds
another from the log.
"""

import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from deployments.errors import StoreUnavailable
from deployments.stores.accelerators import Abandoned, GoOn
from deployments.stores.buckets import WHOLE, Shard
from deployments.stores.changes import Head, changes_since
from deployments.stores.damage import damaged
from deployments.stores.dense import MIN_DEAD_ROWS
from deployments.stores.effort import check_effort
from deployments.stores.hits import Hit
from deployments.stores.indexes import Indexes, Query
from deployments.stores.locks import ReadWriteLock
from deployments.stores.plans import Limits
from deployments.stores.workspace import Workspace
from deployments.types import IndexStats, SearchRequest


class Unwanted(StoreUnavailable):
    """It was dropped while it followed, or its process ends; another one may be wanted."""


class Disagreement(Exception):
    """After following, there are more or fewer chunks than the collection counts."""


class Follower:
    """A collection's indexes as of one sequence number; many threads may search and follow."""

    def __init__(
        self,
        head: Head,
        indexes: Indexes | None = None,
        sequence: int = 0,
        limits: Limits | None = None,
        *,
        shard: Shard = WHOLE,
        workspace: Workspace | None = None,
    ) -> None:
        """Start empty, or with the indexes of an earlier state.

        Args:
            head: which collection, what its vectors are and how they are held.
            indexes: what held at `sequence`.
            sequence: up to which every change is in `indexes`.
            limits: sizes that decide about the index of the vectors.
            shard: which part of the collection.
            workspace: where files may be; None: all is in memory, and cannot be saved.
        """
        self.head = head
        self.shard = shard
        self.collection_id = head.id
        self.embedding_model = head.embedding_model
        self.dim = head.dim
        self.metric = head.metric
        self.following = threading.Lock()
        """Held by the thread that applies changes; whoever holds it sees no other apply any."""
        self.replacing = threading.Lock()
        """Held by the thread that builds another in its place."""
        self.is_broken = False
        self.checked_at_s = -math.inf
        """When it was last known to have every change, on the monotonic clock."""
        self._sequence = sequence
        self._lock = ReadWriteLock()
        self._improving = threading.Lock()
        self._indexes = indexes or Indexes.empty(head, limits, workspace)
        self.num_changed = 0
        """Rows added or removed since the newest snapshot known."""
        self.saved_sequence = 0
        """The sequence number of that snapshot, 0 if there is none."""

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
        """Return the bytes of all its indexes."""
        return self._indexes.num_bytes

    @property
    def num_vector_bytes(self) -> int:
        """Return the bytes of the vectors held, and of what makes their search faster."""
        return self._indexes.dense.num_bytes

    @property
    def num_dead(self) -> int:
        """Return how many chunks are held that no search can find."""
        return self._indexes.dense.num_dead

    @property
    def indexes(self) -> Indexes:
        """Return what is searched; whoever holds `still` sees it hold still."""
        return self._indexes

    @contextmanager
    def still(self) -> Iterator[Indexes]:
        """Keep the indexes from changing; only for moments, and searches of what is new wait."""
        with self.following, self._lock.reading():
            yield self._indexes

    def totals(self) -> tuple[int, int]:
        """Return how many chunks a search can find, and the sum of their numbers."""
        dense = self._indexes.dense
        numbers = dense.select(np.ones(dense.num_rows, dtype=np.bool_)).numbers()
        return len(numbers), int(numbers.sum())

    def is_current(self, head: Head) -> bool:
        """Return whether nothing it holds was erased since, and the settings are the same.

        One that is not may go on following and answering: what was erased was removed by the log,
        so no search finds it. But it holds it, so its owner replaces it.
        """
        mine = (self.head.id, self.head.epoch, self.head.index)
        return mine == (head.id, head.epoch, head.index)

    def restore(self, indexes: Indexes, sequence: int) -> None:
        """Begin with the indexes of a sequence number; the caller holds `following`."""
        assert self._sequence == 0
        with self._lock.writing():
            self._indexes, self._sequence = indexes, sequence
        self.saved_up_to(sequence, 0)

    def saved_up_to(self, sequence: int, num_changed: int) -> None:
        """Take note of a snapshot, and of how many rows have changed since."""
        self.saved_sequence, self.num_changed = sequence, num_changed

    @property
    def wants_rebuild(self) -> bool:
        """Return whether a new follower would be much smaller: a third of the rows are dead.

        Small collections compact themselves; this is for those with a built index.
        """
        num_dead = self.num_dead
        return num_dead >= MIN_DEAD_ROWS and 3 * num_dead > self._indexes.dense.num_rows

    def index_stats(self) -> IndexStats:
        """Return what is held of the vectors, and how well it finds."""
        with self._lock.reading():
            return self._indexes.dense.stats()

    def improve(self, go_on: GoOn = lambda: True, num_threads: int | None = None) -> bool:
        """Do one piece of work that makes searches faster, if one is due; return whether it did.

        Searches and changes go on meanwhile. Building takes from seconds to many minutes.

        Args:
            go_on: asked every few seconds; when it says no, what was done is thrown away.
            num_threads: processors to use; None is half of them.
        """
        if not self._improving.acquire(blocking=False):
            return False
        try:
            return self._improve(go_on, num_threads or max(1, (os.cpu_count() or 1) // 2))
        except Abandoned:
            return False
        finally:
            self._improving.release()

    def _improve(self, go_on: GoOn, num_threads: int) -> bool:
        with self._lock.reading():
            plan = self._indexes.dense.plan()
            if plan is None:
                return False
            frozen = self._indexes.dense.frozen()
        built = frozen.build(plan, go_on, num_threads)
        with self._lock.writing():
            self._indexes.dense.adopt(built, frozen)
        return True

    def can_follow(self, head: Head) -> bool:
        """Return whether the log still has what happened since; False: start a new follower."""
        is_same = self.collection_id == head.id and not self.is_broken
        return is_same and (self._sequence == 0 or self._sequence >= head.log_start)

    def follow(self, connection: Connection, head: Head, go_on: GoOn = lambda: True) -> None:
        """Apply everything up to `head`, all or nothing.

        The caller holds `following` and has asked `can_follow`.

        Args:
            connection: the read transaction in which `head` was read.
            head: where this collection's log stands.
            go_on: asked for each batch; when it says no, the follower is broken.

        Raises:
            DatabaseDamaged: what the log says is not what the collection counts.
            Disagreement: so it is, but perhaps for what the follower held before; it is broken.
        """
        assert self.can_follow(head)
        if self._sequence >= head.sequence:
            return
        try:
            self._apply(connection, head, go_on)
        except BaseException:
            self.is_broken = True
            raise

    def _apply(self, connection: Connection, head: Head, go_on: GoOn) -> None:
        added, removed = [], []
        for changes in changes_since(connection, head, self._sequence, self.shard):
            self._indexes.lexical.stage(changes.numbers, changes.texts, changes.removed)
            with self._lock.writing():
                self._indexes.stage_rows(changes)
            if self.is_broken or not go_on():
                raise Unwanted("the index is no longer wanted")
            added.append(changes.numbers)
            removed.append(changes.removed)
        self._indexes.lexical.commit()
        with self._lock.writing():
            self._indexes.show(_joined(added), _joined(removed))
            self._check_whole(head)
            self._sequence = head.sequence
        self.num_changed += sum(map(len, added)) + sum(map(len, removed))

    def _check_whole(self, head: Head) -> None:
        """Compare the number of chunks; of a shard's, the database keeps no count."""
        if head.num_chunks is None or self.shard.total > 1 or self.num_chunks == head.num_chunks:
            return
        raise Disagreement if self._sequence else damaged("collection's index")

    def search(
        self, request: SearchRequest, query: Query | None, *, limit: int, depth: int, rrf_k: int
    ) -> list[Hit]:
        """Return the best hits of one state of the collection; see `Indexes.search`.

        Raises:
            InvalidRequest: `nprobe` or `ef_search` for a collection that never has such an index.
        """
        check_effort(request, self.head.index)
        with self._lock.reading():
            return self._indexes.search(request, query, limit=limit, depth=depth, rrf_k=rrf_k)

    def rankings(
        self, request: SearchRequest, query: Query | None, *, limit: int
    ) -> list[list[Hit]]:
        """Return rankings of one state of the collection; see `Indexes.rankings`, `search`."""
        check_effort(request, self.head.index)
        with self._lock.reading():
            return self._indexes.rankings(request, query, limit=limit)


def _joined(arrays: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.empty(0, dtype=np.int64), *arrays])
