"""One answer that several requests read, each from its beginning and as it comes."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from deployments.types import AnswerEvent


class Recording:
    """Reads events once, and hands them to as many as like; ends the work when nobody listens."""

    def __init__(self, source: AsyncGenerator[AnswerEvent], on_end: Callable[[], None]) -> None:
        """Begin at once.

        Args:
            source: of the events; closed at the end.
            on_end: called when it has ended, however it did, before those who read know.
        """
        self.events: list[AnswerEvent] = []
        self.has_ended = False
        """Whether the source came to its end, and all its events are here."""
        self._on_end = on_end
        self._wakes: set[asyncio.Event] = set()
        self._num_readers = 0
        self._error: Exception | None = None
        self._is_abandoned = False
        self._task = asyncio.create_task(self._record(source))

    @property
    def may_be_joined(self) -> bool:
        """Return whether who begins to read now will get a whole answer, as far as one can tell."""
        return self._error is None and not self._is_abandoned

    async def read(self) -> AsyncIterator[AnswerEvent]:
        """Yield every event; raises what the work raised."""
        wake = asyncio.Event()
        self._wakes.add(wake)
        self._num_readers += 1
        position = 0
        try:
            while True:
                while position < len(self.events):
                    position += 1
                    yield self.events[position - 1]
                if self.has_ended:
                    return
                if self._error is not None:
                    raise self._error
                wake.clear()
                await wake.wait()
        finally:
            self._wakes.discard(wake)
            self._num_readers -= 1
            if self._num_readers == 0 and not self._task.done():
                self._is_abandoned = True
                self._task.cancel()

    async def _record(self, source: AsyncGenerator[AnswerEvent]) -> None:
        try:
            async with aclosing(source):
                async for event in source:
                    self.events.append(event)
                    self._wake()
            self.has_ended = True
        except Exception as error:  # whatever it is, those who read are told
            self._error = error
        finally:
            self._on_end()
            self._wake()

    def _wake(self) -> None:
        for wake in self._wakes:
            wake.set()
