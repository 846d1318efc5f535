"""The fake's generations: they echo prompts word by word."""

import asyncio
from collections.abc import AsyncIterator

from deployments.types import (
    AnswerEvent,
    Delta,
    Finished,
    GenerationRequest,
    PromptAccepted,
    Sources,
    TokenLogprob,
)
from tests.unit.ingress.fake_models import FakeModels


class FakeGenerations(FakeModels):
    """Answers `echo: <prompt>` word by word; the attributes make it say else or stop early."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[GenerationRequest] = []
        self.words: list[str] | None = None
        self.is_cut = False
        self.num_closed = 0

    async def generate(
        self, request: GenerationRequest, *, timeout_s: float, sources: Sources | None = None
    ) -> AsyncIterator[AnswerEvent]:
        self.requests.append(request)
        self.num_running += 1
        try:
            if request.model:
                await self.resolve(request.model, "generation")
            if self.error is not None and self.error_after == 0:
                raise self.error
            yield PromptAccepted(5, num_passages=len(sources.chunks) if sources else 0)
            if sources is not None:
                yield sources
            for number, word in enumerate(self._words(request)):
                if self.error is not None and number == self.error_after:
                    raise self.error
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                for index in range(request.n):
                    yield Delta(word, index, self._logprobs(request, word))
            if self.is_cut:
                return
            for index in range(request.n):
                yield Finished("stop", len(self._words(request)) + 1, index)
        finally:
            self.num_running -= 1
            self.num_closed += 1

    def _words(self, request: GenerationRequest) -> list[str]:
        if self.words is not None:
            return self.words
        prompt = request.prompt
        if request.messages:
            prompt = request.messages[-1].content
        if request.prompt_token_ids is not None:
            prompt = " ".join(map(str, request.prompt_token_ids))
        return ["echo:", *(f" {word}" for word in (prompt or "")[:200].split(" "))]

    def _logprobs(self, request: GenerationRequest, word: str) -> tuple[TokenLogprob, ...]:
        if request.sampling.logprobs is None:
            return ()
        top = tuple(
            TokenLogprob(i, f"t{i}".encode(), float("-inf") if i else -0.5)
            for i in range(request.sampling.logprobs)
        )
        return (TokenLogprob(7, word.encode(), -0.25, top),)
