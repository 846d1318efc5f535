"""The Retriever deployments of one graph: one for each shard of every collection.

Each shard indexes the documents of its buckets; all share the database, so any of them may write
and fetch. A search asks every shard and merges what they found. The replicas of a shard divide the
collections among themselves: a collection's searches go to the same few, which so hold its indexes.
"""

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from ray.serve.config import RequestRouterConfig
from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter
from ray.serve.handle import DeploymentHandle

from deployments.config import RetrieverArgs
from deployments.errors import CollectionNotFound
from deployments.stores.rankings import merge
from deployments.types import ScoredChunk, SearchRequest
from graphs.handles import Deadline, call, call_all, call_every, plainly_pickled, streamed

ROUTER = RequestRouterConfig.model_validate(
    {
        "request_router_class": ConsistentHashRouter,
        "request_router_kwargs": {"num_fallback_replicas": 2},
    }
)
"""Calls with one session id go to one replica, and to the next on the ring when that is full."""

MAX_HANDLES = 4096
"""Handles kept ready: `handle.options` makes another each time, which costs 0.1 ms."""

Handle = DeploymentHandle[Any]


def shard_name(shard: int, total: int) -> str:
    """Return the name of a shard's deployment."""
    return "Retriever" if total == 1 else f"Retriever-{shard}"


class Shards:
    """Calls the Retrievers; does not know how queries are embedded."""

    def __init__(self, handles: Sequence[Handle], args: RetrieverArgs) -> None:
        """Take the shards' handles, in the shards' order; with none there are no collections."""
        self._handles = [plainly_pickled(handle) for handle in handles]
        self._args = args
        self._method = "search" if len(handles) == 1 else "rankings"
        self._turn = itertools.count()
        self._searches: OrderedDict[str, list[Handle]] = OrderedDict()

    async def search(
        self, request: SearchRequest, embedded: Any, embedding_model: str | None, deadline: Deadline
    ) -> list[ScoredChunk]:
        """Return matching chunks, best first; see `Searcher.search`.

        Args:
            request: what is wanted.
            embedded: the Embedder's response for the query, not awaited; None where none is needed.
            embedding_model: which model it is of; None where there is none.
            deadline: of the whole request.

        Raises:
            RagError: a shard failed; a search never answers from only some of them.
        """
        self._check_any()
        args = (request, embedded, embedding_model)
        found = await _all(
            call(search.remote(*args), deadline, args) for search in self._of(request.collection)
        )
        if len(found) == 1:
            chunks: list[ScoredChunk] = found[0]
            return chunks
        candidates, rrf_k = self._args.candidates, self._args.rrf_k
        return merge(request, found, candidates=candidates, rrf_k=rrf_k)

    async def ask(self, method: str, *args: Any, deadline: Deadline) -> Any:
        """Call what any replica can do: it needs the database only."""
        self._check_any()
        shard = next(self._turn) % len(self._handles)
        handle = self._handles[shard].options(method_name=method)
        return await call(handle.remote(*args), deadline, args)

    def stream(self, method: str, *args: Any, deadline: Deadline) -> AsyncGenerator[Any]:
        """Call what any replica can do and yields the parts of."""
        self._check_any()
        shard = next(self._turn) % len(self._handles)
        handle = self._handles[shard].options(method_name=method, stream=True)
        return streamed(handle.remote(*args), deadline)

    async def check(self, deadline: Deadline) -> None:
        """Raise unless a replica of every shard answers."""
        await _all(call(handle.stats.remote(), deadline) for handle in self._handles)

    async def ask_all(self, method: str, *args: Any, deadline: Deadline) -> list[Any]:
        """Call a method on every replica of every shard; return the answers that were given."""
        answers = await _all(call_all(handle, method, deadline, *args) for handle in self._handles)
        return [answer for of_shard in answers for answer in of_shard]

    async def ask_every(self, method: str, *args: Any, deadline: Deadline) -> None:
        """Call a method on every running replica of every shard; raise unless each one answers."""
        await _all(call_every(handle, method, deadline, *args) for handle in self._handles)

    def _check_any(self) -> None:
        if not self._handles:
            raise CollectionNotFound("this installation runs without collections")

    def _of(self, collection: str) -> list[Handle]:
        """Return the handles of a collection's searches, each bound to one of its replicas."""
        part = next(self._turn) % self._args.replicas_per_collection
        session = f"{collection}#{part}"
        handles = self._searches.get(session)
        if handles is None:
            handles = [
                handle.options(method_name=self._method, session_id=session)
                for handle in self._handles
            ]
            self._searches[session] = handles
            if len(self._searches) > MAX_HANDLES:
                self._searches.popitem(last=False)
        return handles


async def _all(calls: Any) -> list[Any]:
    """Return every result, or raise the first error and stop the other calls."""
    tasks = [asyncio.ensure_future(one) for one in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
