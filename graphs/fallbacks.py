"""The next model when one cannot begin: it is down, full, or not there, before its first token."""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from deployments.errors import (
    EngineFailed,
    ModelNotFound,
    ModelUnavailable,
    Overloaded,
    StoreUnavailable,
)
from deployments.types import Delta, Finished, GenerationEvent, GenerationRequest, PromptAccepted

ACCEPT_S = 5.0
"""Longest wait until a replica has the prompt, while there is another model to ask."""

CANNOT_BEGIN = (EngineFailed, ModelNotFound, ModelUnavailable, Overloaded, StoreUnavailable)
"""The last one: without the registry nobody can say where the model runs, or whether it does."""

Events = AsyncGenerator[GenerationEvent, None]


async def with_fallbacks(
    request: GenerationRequest, ask: Callable[[GenerationRequest], Events]
) -> Events:
    """Yield the events of the first model that begins; `PromptAccepted` says which.

    Raises:
        RagError: of the last model, where none can begin; of the one that began, later.
    """
    models = (request.model, *request.fallbacks)
    for position, model in enumerate(models):
        is_last = position == len(models) - 1
        events = ask(dataclasses.replace(request, model=model, fallbacks=(), is_streamed=True))
        async with aclosing(events):
            try:
                early = await _begun(events, None if is_last else ACCEPT_S)
            except CANNOT_BEGIN:
                if is_last:
                    raise
                continue
            for event in early:
                yield _named(event, model)
            async for event in events:
                yield event
            return


async def _begun(events: Events, accept_s: float | None) -> list[GenerationEvent]:
    """Return the events up to the first piece of text."""
    try:
        async with asyncio.timeout(accept_s):
            early = [await anext(events)]
    except TimeoutError:
        raise Overloaded("no replica of the model took the request in time") from None
    except StopAsyncIteration:
        raise EngineFailed("the model's replica ended without an answer") from None
    async for event in events:
        early.append(event)
        if isinstance(event, Delta | Finished):
            break
    return early


def _named(event: GenerationEvent, model: str) -> GenerationEvent:
    return dataclasses.replace(event, model=model) if isinstance(event, PromptAccepted) else event
