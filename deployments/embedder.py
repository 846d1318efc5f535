"""The Embedder replica: texts in, vectors out. It is a plain class; a graph makes it a deployment.

It knows its engine's protocol only, and nothing of collections or HTTP.
"""

from collections.abc import AsyncGenerator, Sequence

from deployments.batched_replica import BatchedReplica
from deployments.config import EmbedderArgs
from deployments.engines.embedding.base import EmbeddingEngine
from deployments.engines.embedding.registry import create
from deployments.types import EmbeddedText, Vectors


class Embedder(BatchedReplica[EmbeddingEngine]):
    """Embeds with the engine that `args` name."""

    kind = "embedding"

    def __init__(self, args: EmbedderArgs) -> None:
        super().__init__(create(args))

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

    async def texts_apart(self, texts: Sequence[str]) -> AsyncGenerator[tuple[Vectors, list[int]]]:
        """Yield what `embed` returns, for handles: see `Generator.deliver`."""
        yield await self.embed(texts)

    async def documents_apart(
        self, texts: Sequence[str], overlap_tokens: int | None = None
    ) -> AsyncGenerator[list[EmbeddedText]]:
        """Yield what `embed_documents` returns, for handles: see `Generator.deliver`."""
        yield await self.embed_documents(texts, overlap_tokens)

    async def probe(self) -> None:
        """Embed one word."""
        await self.embed(["health"])
