"""The Reranker replica: a query and texts in, scores out. A plain class; a graph deploys it.

It knows its engine's protocol only, and nothing of collections or HTTP.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from deployments.config import RerankerArgs
from deployments.engines.reranking.registry import create
from deployments.errors import EngineFailed, Overloaded
from deployments.types import Relevance

PROBE_TIMEOUT_S = 20.0
"""Less than Serve's own limit on a health check (30 s), so that the replica says what is wrong."""


@dataclass(frozen=True, slots=True)
class RerankerStats:
    """What a Reranker replica is doing: how many tokens wait is what scaling should look at."""

    num_tokens_waiting: int


class Reranker:
    """One model in one process. It loads on first use, which in Serve is the first health check."""

    def __init__(self, args: RerankerArgs) -> None:
        self._engine = create(args)
        self._start: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the model, once; every method does so when nobody has.

        Raises:
            EngineFailed: the model cannot be loaded.
        """
        if self._start is None:
            self._start = asyncio.create_task(self._engine.start())
        await asyncio.shield(self._start)

    async def stop(self) -> None:
        """Free the model; whoever still waits gets EngineFailed."""
        await self._engine.stop()

    async def rerank(self, query: str, texts: Sequence[str]) -> Relevance:
        """Return one score in [0, 1] per text, in order; see `RerankingEngine.rerank`.

        Raises:
            ContextTooLong: the query leaves too little room for a text.
            Overloaded: too many tokens are waiting; safe to retry.
            EngineFailed: the model failed on these texts.
        """
        await self.start()
        return await self._engine.rerank(query, texts)

    async def stats(self) -> RerankerStats:
        """Return what the replica is doing now."""
        return RerankerStats(self._engine.num_tokens_waiting())

    async def check_health(self) -> None:
        """Score one pair; the first check waits for the model. A full queue is no illness.

        Raises:
            EngineFailed: the engine does not load, is dead, or did not answer in time.
        """
        await self.start()
        try:
            await asyncio.wait_for(self.rerank("health", ["health"]), PROBE_TIMEOUT_S)
        except Overloaded:
            return
        except TimeoutError:
            raise EngineFailed("the reranking engine does not answer") from None
