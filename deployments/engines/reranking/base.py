"""The protocol of a reranking engine. It does not know Ray, HTTP or where texts come from."""

from collections.abc import Sequence
from typing import Protocol

from deployments.types import Relevance


class RerankingEngine(Protocol):
    """Reads a query together with each text; many callers share each batch.

    Built cheaply, loaded by `start`; all methods are called from one event loop and never block it.
    """

    @property
    def max_tokens(self) -> int:
        """Return the most tokens (special ones included) of a query and a segment together."""
        ...

    async def start(self) -> None:
        """Load the weights.

        Raises:
            EngineFailed: the model cannot be loaded.
        """
        ...

    async def rerank(self, query: str, texts: Sequence[str]) -> Relevance:
        """Return one score in [0, 1] per text, in order, higher is better.

        A text that does not fit beside the query is segmented, with overlaps, and has the score of
        its best segment: nothing is cut. A blank text has the score 0.

        Raises:
            ContextTooLong: the query takes more than half of the model's tokens.
            Overloaded: more tokens are waiting than the engine's bound.
        """
        ...

    def forget(self) -> None:
        """Keep nothing of the texts so far."""
        ...

    def num_tokens_waiting(self) -> int:
        """Return how many tokens are queued."""
        ...

    async def stop(self) -> None:
        """Free the weights; waiting callers get EngineFailed."""
        ...
