"""Several generations as one: their events interleaved, their choices numbered through."""

import asyncio
import dataclasses
from collections.abc import Sequence
from contextlib import aclosing

from deployments.ingress.generation import Events
from deployments.types import AnswerEvent, Delta, Finished

MAX_WAITING_EVENTS = 64


async def merged(sources: Sequence[Events], choices_each: int) -> Events:
    """Yield the events of all sources as they come; closing ends every source.

    Choice j of source i becomes choice `i * choices_each + j`. A source's error ends all.
    """
    queue: asyncio.Queue[AnswerEvent | Exception | None] = asyncio.Queue(MAX_WAITING_EVENTS)
    pumps = [
        asyncio.create_task(_pump(source, position * choices_each, queue))
        for position, source in enumerate(sources)
    ]
    num_open = len(pumps)
    try:
        while num_open:
            item = await queue.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                num_open -= 1
            else:
                yield item
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(
    source: Events, offset: int, queue: "asyncio.Queue[AnswerEvent | Exception | None]"
) -> None:
    try:
        async with aclosing(source):
            async for event in source:
                if offset and isinstance(event, Delta | Finished):
                    event = dataclasses.replace(event, index=event.index + offset)
                await queue.put(event)
        await queue.put(None)
    except Exception as exc:  # handed on as it is: the reader raises it
        await queue.put(exc)
