"""Calls that come from within: a route of our own is asked in the name of a key.

What is done for a key later, or many times in one call, is validated, limited, written down and
answered by the very route that would do it at once. The gate is not passed: who asked was let in
when they asked, and how many of these run at once is for the caller to bound.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from deployments.errors import NotFound, RagError, Unauthenticated
from deployments.ingress.asgi import App, Message, Scope
from deployments.ingress.auth import Key, KeyAdmin
from deployments.ingress.ended import ended
from deployments.ingress.entry import CURRENT, Audit, Entry, fail
from deployments.ingress.errors import error_body
from deployments.ingress.faults import log_fault
from deployments.ingress.metering import Meter
from deployments.ingress.metrics import Metrics
from deployments.stores.ids import new_id
from deployments.stores.key_rows import is_live

KEY_AGE_S = 0.5
"""For how long a key is taken for live; a revoked one works nowhere after a second."""

MAX_KEYS = 1024
UNANSWERED = 499
HEADERS = [(b"content-type", b"application/json")]

OnBlock = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class InnerAnswer:
    """What a route answered; of a stream the body is empty, for `on_block` had it."""

    status: int
    media_type: str
    body: bytes
    retry_after_s: float | None = None


class InnerCalls:
    """Asks the routes of one application."""

    def __init__(
        self,
        app: App,
        keys: KeyAdmin,
        meter: Meter,
        metrics: Metrics,
        *,
        audit: Audit | None,
        operation_of: Callable[[Scope], str],
    ) -> None:
        self._app = app
        self._stored_keys = keys
        self._meter = meter
        self._metrics = metrics
        self._audit = audit
        self._operation_of = operation_of
        self._keys: dict[str, tuple[float, Key]] = {}

    async def call(
        self,
        key_id: str,
        path: str,
        body: bytes,
        *,
        request_id: str = "",
        on_block: OnBlock | None = None,
    ) -> InnerAnswer:
        """POST JSON to a route, as a stored key.

        Args:
            key_id: of whoever wants it.
            path: of the route.
            body: the JSON.
            request_id: what the call is known by; by default a new one.
            on_block: is given each piece of a stream that succeeds, as it comes.

        Raises:
            Unauthenticated: the key is gone, revoked or expired.
            StoreUnavailable: the key could not be looked up.
        """
        key = await self._key(key_id)
        return await self.call_as(key, path, body, request_id=request_id, on_block=on_block)

    async def call_as(
        self,
        key: Key,
        path: str,
        body: bytes,
        *,
        request_id: str = "",
        on_block: OnBlock | None = None,
    ) -> InnerAnswer:
        """POST JSON to a route, as a key that was verified; see `call`."""
        request_id = request_id or new_id("req")
        exchange = _Exchange(on_block)
        ticket = self._meter.ticket(key, path)
        state = {"request_id": request_id, "started": time.perf_counter(), "key": key}
        state["is_inner"] = True
        scope = _scope(path, {**state, "ticket": ticket})
        entry = self._entry(key, request_id)
        before = CURRENT.set(entry)
        try:
            await self._app(scope, _receive(body), exchange.send)
        except RagError as error:
            exchange.fail(error, request_id)
        except Exception as error:  # Starlette may have answered, and raised it again
            log_fault(error, request_id)
            exchange.fail(RagError(), request_id)
        finally:
            CURRENT.reset(before)
            status = exchange.status or UNANSWERED
            ending = ticket.close(status)
            self._count(scope, status)
            if entry is not None:
                entry.be_called(self._operation_of(scope))
                entry.end(status)
        if ending is not None:
            await ended(ending)
        return exchange.answer()

    def _count(self, scope: Scope, status: int) -> None:
        route = getattr(scope.get("route"), "path", "other")
        duration_s = time.perf_counter() - scope["state"]["started"]
        self._metrics.count_request(route, scope["method"], status, duration_s)

    def _entry(self, key: Key, request_id: str) -> Entry | None:
        if self._audit is None:
            return None
        entry = Entry(self._audit, request_id, "POST")
        entry.belong_to(key)
        return entry

    async def _key(self, key_id: str) -> Key:
        read_at, key = self._keys.get(key_id, (0.0, None))
        now = time.monotonic()
        if key is not None and now - read_at < KEY_AGE_S:
            return key
        try:
            stored = await self._stored_keys.get(key_id)
        except NotFound:
            raise _gone() from None
        if not is_live(stored):
            raise _gone()
        if len(self._keys) >= MAX_KEYS:
            self._keys.clear()
        self._keys[key_id] = (now, stored)
        return stored


class _Exchange:
    """The answer to one call, as it comes."""

    def __init__(self, on_block: OnBlock | None) -> None:
        self.status = 0
        self._on_block = on_block
        self._headers: dict[bytes, bytes] = {}
        self._parts: list[bytes] = []

    async def send(self, message: Message) -> None:
        """Take a message of ASGI."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._headers = dict(message.get("headers", ()))
            return
        body = message.get("body", b"")
        if self._on_block is not None and self.status < 300:
            if body:
                await self._on_block(body)
            return
        self._parts.append(body)

    def fail(self, error: RagError, request_id: str) -> None:
        """Answer with an error, unless there is an answer."""
        if not self.status:
            fail(error)
            self.status = error.status
            self._headers = {b"content-type": b"application/json"}
            self._parts = [error_body(error, request_id)]

    def answer(self) -> InnerAnswer:
        """Return what has come."""
        media_type = self._headers.get(b"content-type", b"").decode("latin-1")
        retry_after = self._headers.get(b"retry-after")
        return InnerAnswer(
            self.status,
            media_type.partition(";")[0],
            b"".join(self._parts),
            float(retry_after) if retry_after is not None else None,
        )


def _scope(path: str, state: dict[str, Any]) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": HEADERS,
        "client": None,
        "server": None,
        "state": state,
    }


def _receive(body: bytes) -> Callable[[], Awaitable[Message]]:
    is_first = True

    async def receive() -> Message:
        nonlocal is_first
        if is_first:
            is_first = False
            return {"type": "http.request", "body": body, "more_body": False}
        await asyncio.Event().wait()  # nobody leaves; whoever called cancels
        raise AssertionError

    return receive


def _gone() -> Unauthenticated:
    return Unauthenticated("the key that asked for this does not work any more")
