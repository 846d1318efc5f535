"""The collections a replica keeps in memory: a bounded set, least recently searched out first."""

import logging
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from deployments.errors import StoreUnavailable
from deployments.stores.buckets import WHOLE, Shard
from deployments.stores.changes import Head
from deployments.stores.follower import Follower
from deployments.stores.workspace import Workspace

log = logging.getLogger(__name__)

RELEASE_TIMEOUT_S = 30.0
"""How long to wait for searches and changes that still use a follower that must go."""


class Followers:
    """Finds the follower of a collection, or starts an empty one; safe to use from many threads."""

    def __init__(
        self,
        max_collections: int,
        shard: Shard = WHOLE,
        *,
        max_bytes: int | None = None,
        workspace: Workspace | None = None,
    ) -> None:
        """Start without any.

        Args:
            max_collections: how many to keep.
            shard: which part of every collection they hold.
            max_bytes: how many bytes of indexes to keep; the one searched last always stays.
            workspace: where indexes may have files.
        """
        self.num_evicted = 0
        self.num_loaded = 0
        """How often a follower was started; memory was taken and may have been freed."""
        self._shard = shard
        self._workspace = workspace
        self._max_collections = max_collections
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._by_name: OrderedDict[str, Follower] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._num_bytes = 0
        self._num_reserved = 0
        self._alive: weakref.WeakSet[Follower] = weakref.WeakSet()
        self._is_over = False

    @property
    def num_bytes(self) -> int:
        """Return the bytes of all indexes as they were measured last."""
        return self._num_bytes

    @property
    def is_over_budget(self) -> bool:
        """Return whether one collection alone takes more than `max_bytes`."""
        return self._is_over

    def known(self, collection: str) -> Follower | None:
        """Return the follower that a name had last, if it is in memory."""
        with self._lock:
            return self._by_name.get(collection)

    def current(self, collection: str, head: Head) -> Follower:
        """Return the follower of the collection that has the name now."""
        with self._lock:
            follower = self._by_name.get(collection)
            if follower is None or not follower.can_follow(head):
                self._drop(collection)
                follower = self._by_name[collection] = self._started(head)
            self._by_name.move_to_end(collection)
            self._shrink()
            return follower

    def started(self, head: Head) -> Follower:
        """Return an empty follower that no search finds; see `swap`."""
        with self._lock:
            return self._started(head)

    @contextmanager
    def room(self, collection: str, num_bytes: int) -> Iterator[bool]:
        """Keep memory free beside a collection's own; yield whether there is as much.

        Others are dropped for it, least recently searched first. They come back from their
        snapshots, which what is replaced may have none of.
        """
        with self._lock:
            own = self._sizes.get(collection, 0)
            has_room = self._max_bytes is None or own + num_bytes <= self._max_bytes
            reserved = num_bytes if has_room else 0
            self._num_reserved += reserved
            if has_room and collection in self._by_name:
                self._by_name.move_to_end(collection)
                self._shrink()
        try:
            yield has_room
        finally:
            with self._lock:
                self._num_reserved -= reserved

    def swap(self, collection: str, old: Follower, new: Follower) -> bool:
        """Put a follower in another's place, if that is still there; return whether it was."""
        with self._lock:
            if self._by_name.get(collection) is not old or new.is_broken:
                return False
            self._by_name[collection] = new  # keeps its place in the order
            self._measure(collection, new)
            return True

    def measured(self, collection: str, follower: Follower) -> None:
        """Measure a follower that changed, and drop others if there is too little memory."""
        with self._lock:
            if self._by_name.get(collection) is follower:
                self._measure(collection, follower)
                self._shrink()

    def drop(self, collection: str, follower: Follower | None = None) -> None:
        """Forget a collection; only if it is this follower, where one is given."""
        with self._lock:
            if follower is None or self._by_name.get(collection) is follower:
                self._drop(collection)

    def all(self) -> list[Follower]:
        """Return every follower in memory."""
        return [follower for _, follower in self.items()]

    def items(self) -> list[tuple[str, Follower]]:
        """Return every collection's name and follower, least recently searched first."""
        with self._lock:
            return list(self._by_name.items())

    def release(self, collection_id: str, epoch: float) -> None:
        """Drop a collection's followers of earlier epochs; return when nothing uses them.

        Raises:
            StoreUnavailable: something still does; safe to retry.
        """
        self._abandon(collection_id, epoch)
        end_s = time.monotonic() + RELEASE_TIMEOUT_S
        while self._holds_older(collection_id, epoch):
            if time.monotonic() > end_s:
                raise StoreUnavailable("the collection is still in use")
            time.sleep(0.01)

    def _abandon(self, collection_id: str, epoch: float) -> None:
        with self._lock:
            for name, follower in list(self._by_name.items()):
                if _is_older(follower, collection_id, epoch):
                    self._drop(name)
            for follower in self._alive:
                if _is_older(follower, collection_id, epoch):
                    follower.is_broken = True  # whoever fills it stops

    def _holds_older(self, collection_id: str, epoch: float) -> bool:
        with self._lock:
            return any(_is_older(follower, collection_id, epoch) for follower in self._alive)

    def _started(self, head: Head) -> Follower:
        follower = Follower(head, shard=self._shard, workspace=self._workspace)
        self._alive.add(follower)
        self.num_loaded += 1
        return follower

    def _shrink(self) -> None:
        while len(self._by_name) > self._max_collections:
            self._evict()
        if self._max_bytes is None:
            return
        while self._num_bytes + self._num_reserved > self._max_bytes and len(self._by_name) > 1:
            self._evict()
        was_over, self._is_over = self._is_over, self._num_bytes > self._max_bytes
        if self._is_over and not was_over:
            log.warning("one collection takes %d MB, more than the budget", self._num_bytes >> 20)

    def _evict(self) -> None:
        self._drop(next(iter(self._by_name)))
        self.num_evicted += 1

    def _drop(self, collection: str) -> None:
        if self._by_name.pop(collection, None) is not None:
            self._num_bytes -= self._sizes.pop(collection, 0)

    def _measure(self, collection: str, follower: Follower) -> None:
        num_bytes = follower.num_bytes
        self._num_bytes += num_bytes - self._sizes.get(collection, 0)
        self._sizes[collection] = num_bytes


def _is_older(follower: Follower, collection_id: str, epoch: float) -> bool:
    return follower.collection_id == collection_id and follower.head.epoch < epoch
