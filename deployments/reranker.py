"""The Reranker replica: a query and texts in, scores out. A plain class; a graph deploys it.

It knows its engine's protocol only, and nothing of collections or HTTP.
"""

from collections.abc import AsyncGenerator, Sequence

from deployments.batched_replica import BatchedReplica
from deployments.config import RerankerArgs
from deployments.engines.reranking.base import RerankingEngine
from deployments.engines.reranking.registry import create
from deployments.types import Relevance


class Reranker(BatchedReplica[RerankingEngine]):
    """Scores texts with the engine that `args` name."""

    kind = "reranking"

    def __init__(self, args: RerankerArgs) -> None:
        super().__init__(create(args))

    async def rerank(self, query: str, texts: Sequence[str]) -> Relevance:
        """Return one score in [0, 1] per text, in order; see `RerankingEngine.rerank`.

        Raises:
            ContextTooLong: the query leaves too little room for a text.
            Overloaded: too many tokens are waiting; safe to retry.
            EngineFailed: the model failed on these texts.
        """
        await self.start()
        return await self._engine.rerank(query, texts)

    async def rerank_apart(self, query: str, texts: Sequence[str]) -> AsyncGenerator[Relevance]:
        """Yield what `rerank` returns, for handles: see `Generator.deliver`."""
        yield await self.rerank(query, texts)

    async def probe(self) -> None:
        """Score one pair."""
        await self.rerank("health", ["health"])
