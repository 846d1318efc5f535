"""One answer that many read: each all of it, and the work ends when nobody does."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from deployments.errors import EngineFailed
from deployments.ingress.caching.recording import Recording
from deployments.types import AnswerEvent, Delta, PromptAccepted


class Source:
    """Gives an event whenever the test says so."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[AnswerEvent | Exception | None] = asyncio.Queue()
        self.is_closed = False

    async def events(self) -> AsyncIterator[AnswerEvent]:
        try:
            while (event := await self.queue.get()) is not None:
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self.is_closed = True

    def give(self, *events: AnswerEvent | Exception | None) -> None:
        for event in events:
            self.queue.put_nowait(event)


async def all_of(recording: Recording) -> list[AnswerEvent]:
    return [event async for event in recording.read()]


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_each_reader_gets_everything_whenever_it_comes() -> None:
    source, ended = Source(), []
    recording = Recording(source.events(), lambda: ended.append(True))
    first = asyncio.create_task(all_of(recording))
    source.give(PromptAccepted(3), Delta("a"))
    await settled()
    second = asyncio.create_task(all_of(recording))
    source.give(Delta("b"), None)
    expected = [PromptAccepted(3), Delta("a"), Delta("b")]
    assert await first == await second == expected
    assert recording.has_ended
    assert await all_of(recording) == expected  # and afterwards
    assert ended == [True]


async def test_events_are_read_as_they_come() -> None:
    source = Source()
    recording = Recording(source.events(), lambda: None)
    reading = recording.read()
    source.give(Delta("a"))
    assert await anext(reading) == Delta("a")
    waiting = asyncio.create_task(anext(reading))
    await settled()
    assert not waiting.done()
    source.give(Delta("b"))
    assert await waiting == Delta("b")
    await reading.aclose()


async def test_work_goes_on_while_somebody_reads_and_ends_when_nobody_does() -> None:
    source, ended = Source(), []
    recording = Recording(source.events(), lambda: ended.append(True))
    first, second = (asyncio.create_task(all_of(recording)) for _ in range(2))
    await settled()
    first.cancel()
    await settled()
    assert not source.is_closed
    assert recording.may_be_joined
    second.cancel()
    await settled()
    assert source.is_closed
    assert ended == [True]
    assert not recording.may_be_joined
    assert not recording.has_ended


async def test_failure_reaches_every_reader_after_what_came_before() -> None:
    source = Source()
    recording = Recording(source.events(), lambda: None)
    readings = [recording.read() for _ in range(2)]
    source.give(Delta("a"), EngineFailed("died"))
    for reading in readings:
        assert await anext(reading) == Delta("a")
        with pytest.raises(EngineFailed, match="died"):
            await anext(reading)
    assert not recording.may_be_joined
    assert not recording.has_ended
