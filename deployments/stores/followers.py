"""The collections a replica keeps in memory: a bounded set, least recently searched out first."""

import threading
from collections import OrderedDict

from deployments.stores.buckets import WHOLE, Shard
from deployments.stores.changes import Head
from deployments.stores.follower import Follower


class Followers:
    """Finds the follower of a collection, or starts an empty one."""

    def __init__(self, max_collections: int, shard: Shard = WHOLE) -> None:
        self._shard = shard
        self._max_collections = max_collections
        self._lock = threading.Lock()
        self._by_name: OrderedDict[str, Follower] = OrderedDict()

    def known(self, collection: str) -> Follower | None:
        """Return the follower that a name had last, if it is in memory."""
        with self._lock:
            return self._by_name.get(collection)

    def current(self, collection: str, head: Head) -> Follower:
        """Return the follower of the collection that has the name now."""
        with self._lock:
            follower = self._by_name.get(collection)
            if follower is None or not follower.can_follow(head):
                follower = self._by_name[collection] = Follower(head, self._shard)
            self._by_name.move_to_end(collection)
            while len(self._by_name) > self._max_collections:
                self._by_name.popitem(last=False)
            return follower

    def drop(self, collection: str) -> None:
        """Forget a collection that is gone."""
        with self._lock:
            self._by_name.pop(collection, None)

    def all(self) -> list[Follower]:
        """Return every follower in memory."""
        with self._lock:
            return list(self._by_name.values())
