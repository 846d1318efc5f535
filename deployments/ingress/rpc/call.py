"""One call as one request to the application, which knows nothing of gRPC.

The application runs in a task of its own. When the caller leaves, it sees what it sees when an
HTTP client hangs up, and ends by itself: it is written down alike.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Protocol
from urllib.parse import unquote

from deployments.ingress.asgi import App, Message, Scope, header
from deployments.ingress.proto.media import IS_STREAMED, PROTOBUF

HEADERS = frozenset(
    {
        *("authorization", "idempotency-key", "traceparent", "x-cache", "x-request-id"),
        *("x-ragserve-peer", "x-ragserve-forwarded"),
    }
)
"""Metadata that the application sees, as headers."""

REQUEST_ID = b"x-request-id"


class Context(Protocol):
    """What is used of gRPC's context of a call."""

    def invocation_metadata(self) -> Any:
        """Return pairs of names and values."""
        ...

    def peer(self) -> str:
        """Return who calls, as `ipv4:127.0.0.1:5000`."""
        ...


class Call:
    """A request to the application, and its answer."""

    def __init__(self, app: App, scope: Scope, requests: AsyncIterator[bytes] | None) -> None:
        """Take the application, and the messages that the caller sends: only one is read."""
        self._requests = requests
        self._is_read = False
        self._gone = asyncio.Event()
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self._begun = asyncio.Event()
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.is_complete = False
        self.is_empty = False
        self._request_id = header(scope, REQUEST_ID)
        self.task = asyncio.create_task(self._run(app, scope))

    async def begun(self) -> None:
        """Wait until the answer begins; or ends, without having begun."""
        await self._begun.wait()

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the answer's body; the application waits while nobody asks for more."""
        while (piece := await self._pieces.get()) is not None:
            yield piece

    async def whole(self) -> bytes:
        """Return the answer's whole body."""
        return b"".join([piece async for piece in self.pieces()])

    def leave(self) -> None:
        """Tell the application that nobody waits for its answer."""
        self._gone.set()
        while not self._pieces.empty():
            self._pieces.get_nowait()

    async def _run(self, app: App, scope: Scope) -> None:
        try:
            await app(scope, self._receive, self._send)
        finally:
            self._begun.set()
            await self._put(None)

    async def _receive(self) -> Message:
        if self._is_read:
            await self._gone.wait()
            return {"type": "http.disconnect"}
        self._is_read = True
        body = b"" if self._requests is None else await self._first(self._requests)
        if self._gone.is_set():
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": body, "more_body": False}

    async def _first(self, requests: AsyncIterator[bytes]) -> bytes:
        async for message in requests:
            return message
        self.is_empty = True  # it was too large, or its sender has left
        self._gone.set()
        return b""

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message.get("headers", ()))
            if REQUEST_ID not in dict(self.headers):  # it has the name that the edge gave it
                self.headers.append((REQUEST_ID, self._request_id.encode("latin-1")))
            self._begun.set()
        elif message["type"] == "http.response.body":
            if message.get("body"):
                await self._put(message["body"])
            self.is_complete = not message.get("more_body", False)

    async def _put(self, piece: bytes | None) -> None:
        if not self._gone.is_set():
            await self._pieces.put(piece)
        elif piece is None and self._pieces.empty():
            self._pieces.put_nowait(None)


def scope_of(context: Context, method: str, path: str, is_streamed: bool | None) -> Scope:
    """Return the request that a call is."""
    given = [(k, v) for k, v in context.invocation_metadata() or () if k in HEADERS]
    headers = [(name.encode(), value.encode("latin-1")) for name, value in given]
    media_type = PROTOBUF.encode()
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "2",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [*headers, (b"content-type", media_type), (b"accept", media_type)],
        "client": client_of(context.peer()),
        "server": None,
        IS_STREAMED: is_streamed,
    }


def client_of(peer: str) -> tuple[str, int] | None:
    """Return address and port of `ipv4:127.0.0.1:5000` or `ipv6:%5B::1%5D:5000`."""
    kind, _, rest = unquote(peer).partition(":")
    host, _, port = rest.rpartition(":")
    if kind not in ("ipv4", "ipv6") or not port.isdigit():
        return None
    return host.strip("[]"), int(port)
