"""Server-sent events, written straight to ASGI: one `data:` line per block, LF only, ASCII only.

Each rule is a client that broke: Dify's plugin SDK ends at an `event:` or `id:` line and at CRLF,
and loses a chunk that a comment is glued to, so a heartbeat is a block of its own; OpenAI's clients
crash on `event: ping`; `requests` and `httpx` split lines at a raw U+2028 or U+0085.
"""

import asyncio
import json
from collections.abc import Callable
from contextlib import aclosing
from json.encoder import encode_basestring_ascii
from typing import Any, Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from deployments.errors import RagError
from deployments.ingress.entry import fail
from deployments.ingress.errors import error_object
from deployments.ingress.faults import log_fault
from deployments.ingress.generation import Answer, Events, too_late
from deployments.types import AnswerEvent

PING = b": ping\n\n"
EVENT_STREAM = "text/event-stream"
DONE = b"data: [DONE]\n\n"

quote = encode_basestring_ascii
"""A JSON string literal in ASCII (in C), so that U+2028, U+2029 and U+0085 never go out raw."""


def block(value: Any) -> bytes:
    """Return one event."""
    return f"data: {dumps(value)}\n\n".encode("ascii")


def dumps(value: Any) -> str:
    """Return compact ASCII JSON."""
    return json.dumps(value, separators=(",", ":"))


def error_block(error: RagError, request_id: str) -> bytes:
    """Return the terminal event of a failed OpenAI stream; it must not have `choices`."""
    return block({"error": error_object(error, request_id)})


class Encoder(Protocol):
    """Turns one answer's events into blocks of one wire format."""

    media_type: str
    """What the stream is called, and below what shows that it lives."""

    ping: bytes

    @property
    def answer(self) -> Answer:
        """Return what has been counted so far."""
        ...

    def event(self, event: AnswerEvent) -> bytes:
        """Return the blocks of an event, often none."""
        ...

    def end(self) -> bytes:
        """Return the terminal blocks; raises EngineFailed when a choice has not finished."""
        ...

    def error(self, error: RagError) -> bytes:
        """Return the terminal block of a stream that failed."""
        ...


class EventStream(Response):
    """A response that writes blocks as events come, and `: ping` while none come."""

    def __init__(
        self,
        events: Events,
        encoder: Encoder,
        *,
        heartbeat_s: float,
        deadline: float,
        on_tokens: Callable[[int, int], None],
    ) -> None:
        super().__init__(
            media_type=encoder.media_type,
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        )
        del self.headers["content-length"]
        self._events = events
        self._encoder = encoder
        self._heartbeat_s = heartbeat_s
        self._deadline = deadline
        self._on_tokens = on_tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the whole stream; ends with exactly one terminal event."""
        async with aclosing(self._events):
            start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(start)
            last = await self._pump(send)
            await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _pump(self, send: Send) -> bytes:
        """Send all but the last blocks; return those."""
        encode = self._encoder.event
        heart = Heartbeat(send, self._heartbeat_s, self._encoder.ping)
        try:
            async with asyncio.timeout_at(self._deadline):
                async for event in self._events:
                    if body := encode(event):
                        await heart.send(body)
            return self._encoder.end()
        except TimeoutError:
            return self._failed(too_late())
        except RagError as exc:
            return self._failed(exc)
        except Exception as exc:  # whatever it is, the stream must end with an error event
            log_fault(exc)
            return self._failed(RagError())
        finally:
            self._on_tokens(
                self._encoder.answer.prompt_tokens, self._encoder.answer.completion_tokens
            )
            await heart.stop()

    def _failed(self, error: RagError) -> bytes:
        fail(error)
        return self._encoder.error(error)


class Heartbeat:
    """Sends body blocks, and a ping whenever nothing was sent for `period_s`."""

    def __init__(self, send: Send, period_s: float, ping: bytes = PING) -> None:
        self._send = send
        self._ping = ping
        self._period_s = period_s
        self._loop = asyncio.get_running_loop()
        self._sent_at = self._loop.time()
        self._is_sending = False
        self._task = asyncio.create_task(self._beat())

    async def send(self, body: bytes) -> None:
        """Send blocks that end with an empty line."""
        self._is_sending = True
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        self._sent_at = self._loop.time()
        self._is_sending = False

    async def stop(self) -> None:
        """End the pings; none comes after this returns."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _beat(self) -> None:
        while True:
            rest = self._sent_at + self._period_s - self._loop.time()
            if rest > 0:
                await asyncio.sleep(rest)
            elif self._is_sending:
                await asyncio.sleep(self._period_s)
            else:
                await self.send(self._ping)
