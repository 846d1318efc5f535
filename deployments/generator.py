"""The Generator replica: prompts that fit, `n` choices at once, and an engine behind a protocol.

A plain class; ``graphs/`` turns it into a deployment. It does not know Ray, HTTP or retrieval.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import cast

from deployments.config import GeneratorArgs
from deployments.delivery.outbox import Outbox
from deployments.engines.generation.base import EngineRequest, GenerationEngine
from deployments.engines.generation.prompts import Prompts
from deployments.engines.generation.registry import create_engine
from deployments.types import (
    Delta,
    EngineStats,
    Finished,
    GenerationEvent,
    GenerationRequest,
    PromptAccepted,
    ReplyTo,
    SamplingParams,
)

ChoiceEvent = Delta | Finished


class Generator:
    """Generates with the engine that `args` names. It loads on first use: Serve's health check."""

    def __init__(self, args: GeneratorArgs) -> None:
        self._args = args
        self._engine: GenerationEngine = create_engine(args)
        self._prompts = Prompts(self._engine, args)
        self._start: asyncio.Task[None] | None = None
        self._outbox = Outbox()
        self._keeps_from_s = 0.0

    async def start(self) -> None:
        """Load the model, once; Serve's first health check waits for it."""
        if self._start is None:
            self._start = asyncio.create_task(self._engine.start())
        await asyncio.shield(self._start)

    async def stop(self) -> None:
        """End every request and free the model."""
        await self._engine.stop()
        self._outbox.close()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """Yield `PromptAccepted`, then every choice's deltas, interleaved, each to its `Finished`.

        Closing the iterator cancels all choices.

        Raises:
            InvalidRequest: the engine cannot do what was asked.
            ContextTooLong: prompt and output do not fit the model's context.
            Overloaded: the engine's queue is full.
            EngineFailed: the engine died.
        """
        await self.start()
        if request.sampling.grammar is None:
            self._engine.check(request.sampling)
        else:  # compiling a grammar takes a while
            await asyncio.to_thread(self._engine.check, request.sampling)
        token_ids, num_passages = await self._prompts.tokens(request)
        max_tokens = self._prompts.max_tokens(len(token_ids), request.sampling.max_tokens)
        sampling = self._resolved(request.sampling, max_tokens)
        yield PromptAccepted(len(token_ids), num_passages)
        if request.n == 1:
            own = EngineRequest(request.request_id, token_ids, sampling, self._is_kept(request))
            async with aclosing(self._engine_events(own)) as events:
                async for event in events:
                    yield event
            return
        async with aclosing(self._choices(request, token_ids, sampling)) as choices:
            async for event in choices:
                yield event

    async def deliver(self, request: GenerationRequest, reply_to: ReplyTo) -> int:
        """Send the same events to an inbox as they come; return their number; raises as `generate`.

        Cancelling the call cancels all choices.
        """
        connection = await self._outbox.connection(reply_to)
        num_events = 0
        async with aclosing(self.generate(request)) as events:
            async for event in events:
                connection.send(reply_to.subscription, event)
                num_events += 1
        return num_events

    async def complete(self, request: GenerationRequest) -> list[GenerationEvent]:
        """Return the same events at once, each choice's text in one delta; raises as `generate`."""
        accepted: list[GenerationEvent] = []
        deltas: dict[int, list[Delta]] = {index: [] for index in range(request.n)}
        ends: list[GenerationEvent] = []
        async with aclosing(self.generate(request)) as events:
            async for event in events:
                if isinstance(event, Delta):
                    deltas[event.index].append(event)
                elif isinstance(event, Finished):
                    ends.append(event)
                else:
                    accepted.append(event)
        return [*accepted, *(joined(parts) for parts in deltas.values() if parts), *ends]

    async def forget(self, late_s: float) -> None:
        """Keep nothing of any prompt so far, whatever passages it held; raises EngineFailed.

        Args:
            late_s: how long prompts may still come whose passages were found before now. Nothing
                is kept of those either.
        """
        self._keeps_from_s = max(self._keeps_from_s, time.monotonic() + late_s)
        await self._engine.forget()

    def _is_kept(self, request: GenerationRequest) -> bool:
        return request.grounding is None or time.monotonic() >= self._keeps_from_s

    def _resolved(self, sampling: SamplingParams, max_tokens: int) -> SamplingParams:
        temperature = sampling.temperature
        if temperature is None:
            temperature = self._args.default_temperature
        return replace(sampling, max_tokens=max_tokens, temperature=temperature)

    async def _choices(
        self, request: GenerationRequest, token_ids: tuple[int, ...], sampling: SamplingParams
    ) -> AsyncGenerator[ChoiceEvent]:
        """Yield the events of all choices as they come."""
        events: asyncio.Queue[ChoiceEvent | BaseException] = asyncio.Queue()

        async def read(index: int) -> None:
            seed = None if sampling.seed is None else sampling.seed + index
            seeded, is_kept = replace(sampling, seed=seed), self._is_kept(request)
            own = EngineRequest(f"{request.request_id}#{index}", token_ids, seeded, is_kept)
            try:
                async with aclosing(self._engine_events(own)) as choice:
                    async for event in choice:
                        events.put_nowait(replace(event, index=index))
            except Exception as error:  # raised again by the reader of the queue
                events.put_nowait(error)

        tasks = [asyncio.create_task(read(index)) for index in range(request.n)]
        num_finished = 0
        try:
            while num_finished < request.n:
                event = await events.get()
                if isinstance(event, BaseException):
                    raise event
                num_finished += isinstance(event, Finished)
                yield event
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _engine_events(self, request: EngineRequest) -> AsyncGenerator[ChoiceEvent]:
        return cast(AsyncGenerator[ChoiceEvent], self._engine.generate(request))

    async def stats(self) -> EngineStats:
        """Return what the engine is doing now."""
        return self._engine.stats()

    async def check_health(self) -> None:
        """Raise EngineFailed when the engine can no longer make progress."""
        await self.start()
        self._engine.check_health()


def joined(parts: Sequence[Delta]) -> Delta:
    """Return one delta for several of the same choice."""
    logprobs = tuple(entry for part in parts for entry in part.logprobs)
    return Delta("".join(part.text for part in parts), parts[0].index, logprobs)
