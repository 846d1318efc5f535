"""The Generator replica: prompts that fit, `n` choices at once, and an engine behind a protocol.

A plain class; ``graphs/`` turns it into a deployment. It does not know HTTP or retrieval, and of
Ray only that ranks of an engine become actors in it (``gangs.py``).
"""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import cast

import ray

from deployments.config import GeneratorArgs
from deployments.delivery.outbox import Outbox
from deployments.discretion import be_discreet
from deployments.engines.generation.base import EngineRequest, GenerationEngine
from deployments.engines.generation.prompts import Prompts
from deployments.engines.generation.registry import create_engine
from deployments.engines.generation.waiting import WaitingTokens
from deployments.types import (
    Delta,
    EngineStats,
    Finished,
    GenerationEvent,
    GenerationRequest,
    PromptAccepted,
    ReplicaVitals,
    ReplyTo,
    SamplingParams,
)
from deployments.vitals import replica_vitals

ChoiceEvent = Delta | Finished


class Generator:
    """Generates with the engine that `args` names. It loads on first use: Serve's health check."""

    def __init__(self, args: GeneratorArgs) -> None:
        be_discreet()
        self._args = args
        self._engine = _engine(args)
        self._prompts = Prompts(self._engine, args)
        self._start: asyncio.Task[None] | None = None
        self._outbox = Outbox()
        self._waiting = WaitingTokens()
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
            UnreadableModel: the adapter's files are not what they were when it was loaded.
            ContextTooLong: prompt and output do not fit the model's context.
            Overloaded: the engine's queue is full.
            EngineFailed: the engine died.
        """
        await self.start()
        adapter = None if request.adapter is None else request.adapter.id
        if request.adapter is not None:
            await self._engine.attach(request.adapter.id, request.adapter.location)
        if request.sampling.grammar is None:
            self._engine.check(request.sampling)
        else:  # compiling a grammar takes a while
            await asyncio.to_thread(self._engine.check, request.sampling)
        token_ids, num_passages = await self._prompts.tokens(request)
        max_tokens = self._prompts.max_tokens(len(token_ids), request.sampling.max_tokens)
        sampling = self._resolved(request.sampling, max_tokens)
        yield PromptAccepted(len(token_ids), num_passages)
        if request.n == 1:
            is_kept = self._is_kept(request)
            own = EngineRequest(request.request_id, token_ids, sampling, is_kept, adapter)
            async with aclosing(self._engine_events(own)) as events:
                async for event in events:
                    yield event
            return
        async with aclosing(self._choices(request, token_ids, sampling)) as choices:
            async for event in choices:
                yield event

    async def deliver(self, request: GenerationRequest, reply_to: ReplyTo) -> AsyncGenerator[int]:
        """Send the same events to an inbox as they come; yield their number; raises as `generate`.

        It is a stream of one item because of a stream Serve's router learns at its beginning that
        the replica has taken it, and how much that one has to do; of a plain call only at its end.
        Closing the iterator cancels all choices.
        """
        connection = await self._outbox.connection(reply_to)
        num_events = 0
        async with aclosing(self.generate(request)) as events:
            async for event in events:
                connection.send(reply_to.subscription, event)
                num_events += 1
        yield num_events

    async def complete(self, request: GenerationRequest) -> AsyncGenerator[list[GenerationEvent]]:
        """Yield the same events at once, each choice's text in one delta; raises as `generate`.

        A stream of one item, as of `deliver`.
        """
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
        yield [*accepted, *(joined(parts) for parts in deltas.values() if parts), *ends]

    async def check_adapter(self, location: str) -> None:
        """Read an adapter and give it up again.

        Raises:
            InvalidRequest: the engine serves no adapters, or this one does not fit the model.
            UnreadableModel: its files are damaged, or of a form that is not served.
        """
        await self.start()
        name = f"check-{uuid.uuid4()}"
        await self._engine.attach(name, location)
        await self._engine.detach(name)

    async def detach(self, adapter: str) -> None:
        """Free an adapter once its requests have ended; nothing happens if it is not there."""
        await self.start()
        await self._engine.detach(adapter)

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
        adapter = None if request.adapter is None else request.adapter.id

        async def read(index: int) -> None:
            seed = None if sampling.seed is None else sampling.seed + index
            seeded, is_kept = replace(sampling, seed=seed), self._is_kept(request)
            name = f"{request.request_id}#{index}"
            own = EngineRequest(name, token_ids, seeded, is_kept, adapter)
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
        events = cast(AsyncGenerator[ChoiceEvent], self._engine.generate(request))
        # Few answers are as long as they may be: one counts with the default length at most.
        output = min(request.sampling.max_tokens or 0, self._args.default_max_tokens)
        return self._waiting.watched(events, len(request.token_ids) + output)

    async def stats(self) -> EngineStats:
        """Return what the engine is doing now."""
        return self._engine.stats()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what ``cluster/autoscaling.py`` looks at: tokens waiting, KV cache in use."""
        usage = self._engine.stats().kv_cache_usage
        return {"tokens_waiting": float(self._waiting.num_tokens), "kv_cache_usage": usage}

    async def vitals(self) -> ReplicaVitals:
        """Return what the process and its machine hold, and what the engine is doing."""
        stats = self._engine.stats()
        return replica_vitals(
            stats.num_running, stats.num_queued, stats.tokens_per_s, stats.kv_cache_usage
        )

    async def check_health(self) -> None:
        """Raise EngineFailed when the engine can no longer make progress."""
        await self.start()
        self._engine.check_health()


def _engine(args: GeneratorArgs) -> GenerationEngine:
    if args.engine == "deepspeed" and ray.is_initialized():
        from deployments.gangs import create_gang_engine  # DeepSpeed's libraries only where wanted

        return create_gang_engine(args)
    return create_engine(args)


def joined(parts: Sequence[Delta]) -> Delta:
    """Return one delta for several of the same choice."""
    logprobs = tuple(entry for part in parts for entry in part.logprobs)
    return Delta("".join(part.text for part in parts), parts[0].index, logprobs)
