"""The request body, bounded, and the client on the other side of it, who may leave at any time.

The body is read whole before anything works on it: chunked or not, it is counted as it arrives.
"""

import asyncio

from deployments.errors import DeadlineExceeded, InvalidRequest, Overloaded, PayloadTooLarge
from deployments.ingress.asgi import App, Exchange, Message, Receive, Scope, header

BODIES_AT_ONCE = 8


class ClientGone(Exception):
    """The client closed the connection; nobody is left to answer."""


class BodyReader:
    """Reads bodies of at most `max_bytes`, and holds `BODIES_AT_ONCE` times that at any time."""

    def __init__(self, max_bytes: int, timeout_s: float) -> None:
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._room = BODIES_AT_ONCE * max_bytes

    async def read(self, scope: Scope, receive: Receive) -> bytes:
        """Return the body; give its room back with `release`.

        Raises:
            PayloadTooLarge: it is announced, or turns out, to be over the limit.
            InvalidRequest: it is compressed.
            Overloaded: other large bodies fill the memory set aside for them.
            ClientGone: the client left in the middle.
        """
        self._check_headers(scope)
        chunks: list[bytes] = []
        taken = 0
        try:
            async with asyncio.timeout(self._timeout_s):
                has_more = True
                while has_more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    chunk = message.get("body", b"")
                    taken += self._take(len(chunk), taken)
                    chunks.append(chunk)
                    has_more = message.get("more_body", False)
        except BaseException as exc:
            self.release(taken)
            if isinstance(exc, TimeoutError):
                raise DeadlineExceeded("the body did not arrive in time") from None
            raise
        return b"".join(chunks)

    def release(self, num_bytes: int) -> None:
        """Give back the room of a body that is no longer held."""
        self._room += num_bytes

    def _take(self, num_bytes: int, taken: int) -> int:
        if taken + num_bytes > self._max_bytes:
            raise self._too_large()
        if num_bytes > self._room:
            raise Overloaded("too many large requests at once; try again shortly")
        self._room -= num_bytes
        return num_bytes

    def _check_headers(self, scope: Scope) -> None:
        length = header(scope, b"content-length")
        if length.isdigit() and int(length[:20]) > self._max_bytes:
            raise self._too_large()
        if header(scope, b"content-encoding").lower() not in {"", "identity"}:
            raise InvalidRequest("compressed request bodies are not accepted")

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"the body is larger than {self._max_bytes} bytes")


async def call_while_connected(
    app: App, scope: Scope, receive: Receive, exchange: Exchange, body: bytes
) -> None:
    """Run an app over a body that was read; cancel it when the client leaves.

    Raises:
        ClientGone: the client left before the response was complete; the app has been cancelled.
    """
    task = asyncio.current_task()
    assert task is not None
    has_left = False

    async def watch() -> None:
        nonlocal has_left
        while (await receive())["type"] != "http.disconnect":
            pass
        if not exchange.is_complete:
            has_left = True
            task.cancel()

    watcher = asyncio.create_task(watch())
    is_first = True

    async def replay() -> Message:
        nonlocal is_first
        if is_first:
            is_first = False
            return {"type": "http.request", "body": body, "more_body": False}
        await asyncio.wait([watcher])
        return {"type": "http.disconnect"}

    try:
        await app(scope, replay, exchange.send)
    except asyncio.CancelledError:
        if has_left and task.uncancel() == 0:
            raise ClientGone from None
        raise
    finally:
        watcher.cancel()
