"""One line of a batch: asked until it is answered, and the answer as a line of a file."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import orjson

from deployments.backoff import Backoff
from deployments.errors import RagError
from deployments.ingress.batches.pace import Pace
from deployments.stores.ids import new_id
from deployments.types.batches import LineResult

FULL = frozenset({429, 503})
"""Statuses that say there is no room now; a line waits for room as long as its batch may take."""

BROKEN = frozenset({502, 504})
MAX_BROKEN = 3
"""How often a line is asked whose answers break off: it may be what breaks them."""

RETRY = Backoff(0.5, 30.0)

Sleep = Callable[[float], Awaitable[None]]


class Answer(Protocol):
    """What a route answered; see `InnerAnswer`."""

    @property
    def status(self) -> int:
        """Return the HTTP status."""
        ...

    @property
    def body(self) -> bytes:
        """Return the JSON."""
        ...

    @property
    def retry_after_s(self) -> float | None:
        """Return the pause that was asked for."""
        ...


class Calls(Protocol):
    """Asks our own routes; see `InnerCalls`."""

    async def call(self, key_id: str, path: str, body: bytes, *, request_id: str = "") -> Answer:
        """POST JSON to a route, as a stored key; raises RagError when that is no key any more."""
        ...


class Asker:
    """Asks the lines of one batch."""

    def __init__(
        self, calls: Calls, key_id: str, path: str, pace: Pace, sleep: Sleep = asyncio.sleep
    ) -> None:
        self._calls = calls
        self._key_id = key_id
        self._path = path
        self._pace = pace
        self._sleep = sleep

    async def ask(self, number: int, epoch: int, custom_id: str, body: bytes) -> LineResult:
        """Return what a line comes to.

        Raises:
            RagError: the batch cannot go on: its key does not work any more.
        """
        num_full = num_broken = 0
        while True:
            request_id = new_id("req")
            started = time.perf_counter()
            status, answer, after_s = await self._call(body, request_id)
            if status in FULL:
                num_full += 1
                self._pace.refuse()
                await self._sleep(_pause_s(num_full, after_s))
            elif status in BROKEN and num_broken + 1 < MAX_BROKEN:
                num_broken += 1
                await self._sleep(_pause_s(num_broken, after_s))
            else:
                break
        value = orjson.loads(answer)
        if status < 300:
            self._pace.note((time.perf_counter() - started) / _num_tokens(value))
        response = {"status_code": status, "request_id": request_id, "body": value}
        data = _line(custom_id, response)
        return LineResult(number, epoch, status >= 300, data)

    async def _call(self, body: bytes, request_id: str) -> tuple[int, bytes, float | None]:
        try:
            answer = await self._calls.call(self._key_id, self._path, body, request_id=request_id)
        except RagError as error:
            if not error.retryable:
                raise
            return error.status, b"null", error.retry_after_s
        return answer.status, answer.body, answer.retry_after_s


def _line(custom_id: str, response: dict[str, Any]) -> bytes:
    """Return one line of an output or error file."""
    line = {
        "id": new_id("batch_req"),
        "custom_id": custom_id,
        "response": response,
        "error": None,
    }
    return orjson.dumps(line) + b"\n"


def _num_tokens(value: Any) -> int:
    """Return how much work an answer was: tokens that came out, else those that went in."""
    usage = value.get("usage") if isinstance(value, dict) else None
    if not isinstance(usage, dict):
        return 1
    counts = [usage.get(name) for name in ("completion_tokens", "output_tokens", "total_tokens")]
    return next((one for one in counts if isinstance(one, int) and one > 0), 1)


def _pause_s(num_failures: int, after_s: float | None) -> float:
    """Return how long to wait; at least as long as was asked for, and not all at one instant."""
    pause_s = RETRY.pause_s(num_failures)
    if not after_s:
        return pause_s
    return max(pause_s, min(after_s, RETRY.max_s) + random.uniform(0, 1))  # noqa: S311  # no secret
