"""The protocol of an embedding engine. It does not know Ray, HTTP or where vectors are kept."""

from collections.abc import Sequence
from typing import Protocol

from deployments.types import EmbeddedText, Segment, Vectors


class EmbeddingEngine(Protocol):
    """Turns texts into vectors; many callers share each batch.

    Built cheaply, loaded by `start`; all methods are called from one event loop and never block it.
    """

    @property
    def dim(self) -> int:
        """Return the length of a vector."""
        ...

    @property
    def max_tokens(self) -> int:
        """Return the most tokens (special ones included) that one segment may have, ≤ 512."""
        ...

    async def start(self) -> None:
        """Load the weights.

        Raises:
            EngineFailed: the model cannot be loaded.
        """
        ...

    async def embed(self, texts: Sequence[str]) -> tuple[Vectors, list[int]]:
        """Return one vector per text, in order, and each text's number of tokens.

        A text over the model's limit is segmented and its vector is the normalised mean of its
        segments' vectors, weighted by their tokens: nothing is cut.

        Raises:
            Overloaded: more tokens are waiting than the engine's bound.
        """
        ...

    async def embed_documents(
        self, texts: Sequence[str], overlap_tokens: int | None = None
    ) -> list[EmbeddedText]:
        """Segment each text and embed the segments; None: they overlap as configured."""
        ...

    async def segment(self, text: str) -> list[Segment]:
        """Return the segments of a text, in order; their spans leave out only white space."""
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
