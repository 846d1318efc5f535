"""The few ASGI pieces that all layers share: types, header look-up, and the response on its way."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SAFE_HEADERS = {
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}


def header(scope: Scope, name: bytes) -> str:
    """Return the only value of a header (lower-case name), or "" when it is absent or repeated."""
    values: list[bytes] = [value for key, value in scope["headers"] if key == name]
    return values[0].decode("latin-1") if len(values) == 1 else ""


def path_of(scope: Scope) -> str:
    """Return the path below the prefix that the application is mounted at."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


Settle = Callable[[int], Awaitable[list[Message] | None]]
"""Is asked before a response starts with a status; may return another response."""


class Exchange:
    """The response of one request on its way out: adds our headers, remembers how far it got.

    With `is_id_echoed` somebody outside (Serve) writes the request's id into the response.
    """

    def __init__(self, send: Send, request_id: str, *, is_id_echoed: bool) -> None:
        self._send = send
        self.request_id = request_id
        self._is_id_echoed = is_id_echoed
        self.status = 0
        self.is_complete = False
        self.settle: Settle | None = None
        self._is_replaced = False
        self.extra_headers: Callable[[], list[tuple[bytes, bytes]]] = list
        self.before_end: Callable[[], Awaitable[None]] | None = None
        """Awaited before the last byte leaves, after which the client may come again."""

    async def send(self, message: Message) -> None:
        """Pass an ASGI message on, unless another response has taken its place."""
        if self._is_replaced:
            return
        if message["type"] == "http.response.start" and self.settle is not None:
            instead = await self.settle(message["status"])
            for one in instead or ():
                await self._pass_on(one)
            self._is_replaced = instead is not None
        if not self._is_replaced:
            await self._pass_on(message)

    async def _pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            is_last = not message.get("more_body", False)
            if is_last and self.before_end is not None:
                await self.before_end()
            self.is_complete = is_last
        elif message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": self._with_ours(message.get("headers", ()))}
        await self._send(message)

    def _with_ours(self, headers: Any) -> list[tuple[bytes, bytes]]:
        given = {name for name, _ in headers}
        ours = [(name, value) for name, value in SAFE_HEADERS.items() if name not in given]
        if not self._is_id_echoed:
            ours.append((b"x-request-id", self.request_id.encode()))
        return [*headers, *ours, *self.extra_headers()]
