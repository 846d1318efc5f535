"""A deterministic graph in memory: echoes prompts, embeds by hashing, searches by shared words."""

import asyncio
from collections.abc import AsyncIterator

from deployments.errors import RagError
from deployments.types import (
    AnswerEvent,
    Basis,
    GenerationRequest,
    Retrieval,
    SearchRequest,
    Sources,
)
from tests.unit.ingress.fake_corpus import FakeCorpus
from tests.unit.ingress.fake_generations import FakeGenerations


class FakeGraph(FakeCorpus, FakeGenerations):
    """All that a graph can do; the attributes make it fail and wait, and tell what was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.retrievals: list[Retrieval] = []
        self.load = "first"
        self.parts = {"generator": True, "retriever": True}
        self.is_maintained = False

    async def basis(
        self,
        request: GenerationRequest,
        retrieval: Retrieval | None,
        *,
        is_greedy_only: bool,
        timeout_s: float,
    ) -> Basis | None:
        model = await self.resolve(request.model or self.generation_models[0], "generation")
        if is_greedy_only and request.sampling.temperature != 0:
            return None
        if retrieval is None:
            return Basis(model, self.load)
        info = await self.collection(retrieval.collection, timeout_s=timeout_s)
        return Basis(model, f"{self.load} {info}")

    async def answer(
        self, request: GenerationRequest, retrieval: Retrieval, *, timeout_s: float
    ) -> AsyncIterator[AnswerEvent]:
        self.retrievals.append(retrieval)
        query = SearchRequest(collection=retrieval.collection, query="x", top_k=3)
        chunks = await self.search(query, timeout_s=timeout_s)
        events = self.generate(request, timeout_s=timeout_s, sources=Sources(tuple(chunks)))
        try:
            async for event in events:
                yield event
        finally:
            await events.aclose()

    async def maintain(self) -> None:
        self.is_maintained = True
        await asyncio.Event().wait()

    async def health(self, *, timeout_s: float) -> dict[str, bool]:
        if isinstance(self.error, RagError):
            raise self.error
        return self.parts
