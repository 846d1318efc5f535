"""The Embedder replica: texts in, vectors out. It is a plain class; a graph makes it a deployment.

It knows its engine's protocol only, and nothing of collections or HTTP.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from deployments.config import EmbedderArgs
from deployments.engines.embedding.registry import create
from deployments.errors import EngineFailed, Overloaded
from deployments.types import EmbeddedText, Vectors

PROBE_TIMEOUT_S = 20.0
"""Less than Serve's own limit on a health check (30 s), so that the replica says what is wrong."""


@dataclass(frozen=True, slots=True)
class EmbedderStats:
    """What an Embedder replica is doing: how many tokens wait is what scaling should look at."""

    num_tokens_waiting: int


class Embedder:
    """One model in one process. It loads on first use, which in Serve is the first health check."""

    def __init__(self, args: EmbedderArgs) -> None:
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

    async def embed(self, texts: Sequence[str]) -> tuple[Vectors, list[int]]:
        """Return one vector per text, float32[n, dim] L2-normalised, and each text's tokens.

        Raises:
            Overloaded: too many tokens are waiting; safe to retry.
            EngineFailed: the model failed on these texts.
        """
        await self.start()
        return await self._engine.embed(texts)

    async def embed_documents(
        self, texts: Sequence[str], overlap_tokens: int | None = None
    ) -> list[EmbeddedText]:
        """Return each text's segments and their vectors; None: they overlap as configured.

        Raises:
            Overloaded: too many tokens are waiting; safe to retry.
            EngineFailed: the model failed on these texts.
        """
        await self.start()
        return await self._engine.embed_documents(texts, overlap_tokens)

    async def stats(self) -> EmbedderStats:
        """Return what the replica is doing now."""
        return EmbedderStats(self._engine.num_tokens_waiting())

    async def check_health(self) -> None:
        """Embed one word; the first check waits for the model. A full queue is no illness.

        Raises:
            EngineFailed: the engine does not load, is dead, or did not answer in time.
        """
        await self.start()
        try:
            await asyncio.wait_for(self.embed(["health"]), PROBE_TIMEOUT_S)
        except Overloaded:
            return
        except TimeoutError:
            raise EngineFailed("the embedding engine does not answer") from None
