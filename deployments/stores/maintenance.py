"""What a replica does for its indexes while it answers: replace, improve, save, and sweep up.

One thread looks at every collection in memory again and again. It fails for one collection at a
time, and lets that one rest for longer and longer. What changes an index here is made beside it
and put in its place; searches go on.
"""

import ctypes
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deployments.errors import CollectionNotFound, StoreUnavailable
from deployments.stores.changes import Head, heads
from deployments.stores.database import Database
from deployments.stores.follower import Follower
from deployments.stores.pace import Pace
from deployments.stores.search import Searcher

log = logging.getLogger(__name__)

MAX_REST_S = 3600.0
STOP_TIMEOUT_S = 10.0


class Maintenance:
    """The thread, and its rounds; `purge` may be called from any other."""

    def __init__(self, searcher: Searcher, database: Database, pace: Pace | None = None) -> None:
        """Prepare; nothing runs before `start`."""
        self._searcher = searcher
        self._database = database
        self._pace = pace or Pace()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._swept_at_s = -float("inf")
        self._num_loaded = 0
        self._rests: dict[str, tuple[float, float]] = {}  # by collection: until when, how long

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="maintenance", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; what is being built or written is given up."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(STOP_TIMEOUT_S)

    def round(self) -> None:
        """Look once at every collection in memory, and now and then at the disk."""
        items = self._searcher.followers.items()
        stored, read_at_s = heads(self._database.rows), time.monotonic()
        for name, follower in items:
            if self._stop.is_set():
                return
            if time.monotonic() - read_at_s > self._pace.interval_s:  # one took long
                stored, read_at_s = heads(self._database.rows), time.monotonic()
            with self._resting("collection " + follower.collection_id) as may_try:
                if may_try:
                    self._maintain(name, follower, stored.get(follower.collection_id))
        if time.monotonic() - self._swept_at_s > self._pace.sweep_s:
            self._swept_at_s = time.monotonic()
            with self._resting("sweep") as may_try:
                if may_try:
                    self._sweep()
        self._trim()

    def purge(self, collection_id: str) -> None:
        """Let go of everything older than the collection's epoch in the database.

        When it returns, this replica has nothing older in memory, in working folders or among its
        state folder's snapshots. What is in memory goes on answering, without what was erased,
        until another is built from the log beside it: minutes for a million chunks. Where memory
        has no room for both it is dropped, and built again when it is next searched.

        Raises:
            StoreUnavailable: something is still in use, or a snapshot is being written; repeat it.
        """
        head = heads(self._database.rows).get(collection_id)
        epoch = float("inf") if head is None else head.epoch
        if self._searcher.snapshots is not None:
            self._searcher.snapshots.remove_older(collection_id, epoch)
        if head is not None:
            self._renew(head)
        self._searcher.followers.release(collection_id, epoch)

    def _renew(self, head: Head) -> None:
        """Replace what a collection has in memory while that is of an earlier epoch, if it can."""
        followers = self._searcher.followers
        # Names: whoever waits here must not hold a follower that another purge has replaced.
        for name in [name for name, one in followers.items() if one.collection_id == head.id]:
            follower = followers.known(name)
            while follower is not None and _is_older(follower, head):
                with followers.room(name, follower.num_bytes) as has_room, follower.replacing:
                    is_replaced = has_room and self._replace(name, follower)
                is_other = followers.known(name) is not follower
                follower = followers.known(name) if is_replaced or is_other else None

    def _run(self) -> None:
        while not self._stop.wait(self._pace.interval_s):
            try:
                self.round()
            except Exception as error:  # the database is away; the thread must outlive that
                log.warning("maintenance failed: %s", type(error).__name__)

    def _maintain(self, name: str, follower: Follower, head: Head | None) -> None:
        if head is None or not follower.can_follow(head):
            self._searcher.followers.drop(name, follower)
        elif follower.sequence == 0:
            return  # nobody has loaded it yet
        elif not follower.is_current(head) or follower.wants_rebuild:
            self._replace_alone(name, follower)
        elif follower.improve(lambda: self._goes_on() and not follower.is_broken):
            self._searcher.followers.measured(name, follower)
        elif self._is_snapshot_due(follower, head):
            self._save(follower)

    def _replace_alone(self, name: str, follower: Follower) -> None:
        """Replace a follower unless somebody does already."""
        if follower.replacing.acquire(blocking=False):
            try:
                self._replace(name, follower)
            finally:
                follower.replacing.release()

    def _replace(self, name: str, follower: Follower) -> bool:
        """Build a follower from the log, and put it in another's place; return whether it was.

        The caller holds `replacing`.
        """
        followers = self._searcher.followers
        if followers.known(name) is not follower:
            return False
        with self._database.read() as connection:
            now = heads(connection.execute).get(follower.collection_id)
            if now is None:
                return False
            new = followers.started(now)
            with new.following:
                new.follow(connection, now, self._goes_on)

        def goes_on() -> bool:
            return self._goes_on() and not new.is_broken

        while goes_on() and new.improve(goes_on):
            pass  # else searches of a large collection read all of it until the next round
        self._catch_up(new, goes_on)
        return followers.swap(name, follower, new)

    def _catch_up(self, follower: Follower, goes_on: Callable[[], bool]) -> None:
        """Apply what was written while a follower was improved, so that no search has to."""
        with follower.following, self._database.read() as connection:
            now = heads(connection.execute).get(follower.collection_id)
            if now is not None and follower.can_follow(now):
                follower.follow(connection, now, goes_on)

    def _goes_on(self) -> bool:
        return not self._stop.is_set()

    def _is_snapshot_due(self, follower: Follower, head: Head) -> bool:
        snapshots, pace = self._searcher.snapshots, self._pace
        num_rows = follower.num_chunks
        if snapshots is None or num_rows < pace.min_rows or not follower.indexes.can_save:
            return False
        newest = snapshots.newest(follower.collection_id)
        if newest is None or newest < head.log_start:
            return True
        if newest > follower.saved_sequence:  # another replica's is as good
            follower.saved_up_to(newest, 0)
        is_far = head.sequence - newest > pace.max_lag
        limit = min(pace.max_changed, pace.min_changed * num_rows)
        return is_far or follower.num_changed >= max(limit, 1)

    def _save(self, follower: Follower) -> None:
        snapshots = self._searcher.snapshots
        assert snapshots is not None

        def is_wanted() -> bool:
            head = heads(self._database.rows).get(follower.collection_id)
            return self._goes_on() and head is not None and follower.is_current(head)

        snapshots.save(follower, is_wanted)

    def _sweep(self) -> None:
        if self._searcher.workspace is not None:
            self._searcher.workspace.sweep()
        if self._searcher.snapshots is not None:
            self._searcher.snapshots.sweep(lambda: heads(self._database.rows))
        followed = {one.collection_id for one in self._searcher.followers.all()}
        known = {"collection " + one for one in followed} | {"sweep"}
        self._rests = {key: rest for key, rest in self._rests.items() if key in known}

    def _trim(self) -> None:
        """Give freed memory back to the system when something was loaded.

        Source: tantivy's writers leave 1 MB behind for each small collection that is loaded, of
        which it needs 0.1; 200 of them are trimmed in 35 ms.
        """
        num_loaded = self._searcher.followers.num_loaded
        if num_loaded != self._num_loaded:
            self._num_loaded = num_loaded
            trim = _malloc_trim()
            if trim is not None:
                trim(0)

    @contextmanager
    def _resting(self, key: str) -> Iterator[bool]:
        """Yield whether a thing may be tried; log when it fails, and let it rest."""
        until_s, rest_s = self._rests.get(key, (0.0, self._pace.rest_s))
        if time.monotonic() < until_s:
            yield False
            return
        try:
            yield True
        except (CollectionNotFound, StoreUnavailable) as error:
            log.info("maintenance of %s waits: %s", key, type(error).__name__)
        except Exception as error:  # one collection's failure must not stop the others'
            self._rests[key] = (time.monotonic() + rest_s, min(2 * rest_s, MAX_REST_S))
            log.warning("maintenance of %s failed: %s", key, type(error).__name__)
        else:
            self._rests.pop(key, None)


def _is_older(follower: Follower, head: Head) -> bool:
    return follower.collection_id == head.id and follower.head.epoch < head.epoch


def _malloc_trim() -> Callable[[int], int] | None:
    """Return the function of glibc; other libraries have none."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
