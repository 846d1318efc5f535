"""Waits, in an event loop, for what threads of ours do: what ends together wakes the loop once.

Source: `asyncio.wrap_future` costs each wait three turns of the loop and a wake-up of its own; of a
group of writes that are one commit (``stores/grouping.py``) all end at one instant.
"""

import asyncio
from collections import deque
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

Result = TypeVar("Result")
Waited = tuple["asyncio.Future[Any]", "Future[Any]"]


async def ended(future: "Future[Result]", timeout_s: float | None = None) -> Result:
    """Return what a future comes to, or raise it; it goes on when whoever waits is cancelled.

    Raises:
        TimeoutError: it has not ended in time.
    """
    loop = asyncio.get_running_loop()
    turn: asyncio.Future[Result] = loop.create_future()
    future.add_done_callback(partial(_of(loop).add, turn))
    if timeout_s is None:
        return await turn
    alarm = loop.call_later(timeout_s, _give_up, turn)
    try:
        return await turn
    finally:
        alarm.cancel()


def _give_up(turn: "asyncio.Future[Any]") -> None:
    if not turn.done():
        turn.set_exception(TimeoutError())


class _Endings:
    """What has ended and is not known to a loop yet."""

    def __init__(self) -> None:
        self._endings: deque[Waited] = deque()
        self._is_woken = False

    def add(self, turn: "asyncio.Future[Any]", future: "Future[Any]") -> None:
        """Take an ending, on any thread."""
        self._endings.append((turn, future))
        loop = turn.get_loop()
        if not self._is_woken and not loop.is_closed():
            self._is_woken = True
            loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._is_woken = False  # first: what comes from here on wakes the loop again
        while self._endings:
            turn, future = self._endings.popleft()
            if turn.done():  # nobody waits any more
                continue
            if future.cancelled():
                turn.cancel()
            elif (error := future.exception()) is not None:
                turn.set_exception(error)
            else:
                turn.set_result(future.result())


_KNOWN: WeakKeyDictionary[asyncio.AbstractEventLoop, _Endings] = WeakKeyDictionary()


def _of(loop: asyncio.AbstractEventLoop) -> _Endings:
    found = _KNOWN.get(loop)
    if found is None:
        found = _KNOWN[loop] = _Endings()
    return found
