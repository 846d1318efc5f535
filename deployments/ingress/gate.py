"""The outermost layer: every request gets an id, is identified, limited, answered and counted.

Plain ASGI. It does not know routes beyond those that need no key.
"""

import re
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

from deployments.config import IngressArgs
from deployments.errors import RagError
from deployments.ingress.addresses import Addresses, check_key
from deployments.ingress.asgi import App, Exchange, Message, Receive, Scope, Send, header, path_of
from deployments.ingress.auth import Key, KeyVerifier, bearer_of
from deployments.ingress.body import BodyReader, ClientGone, call_while_connected
from deployments.ingress.ended import ended
from deployments.ingress.entry import CURRENT, Audit, Entry, fail
from deployments.ingress.failure import failure_of
from deployments.ingress.faults import log_fault
from deployments.ingress.metering import Meter, Ticket
from deployments.ingress.metrics import CLIENT_GONE, Metrics
from deployments.ingress.peer import Address, Peers
from deployments.ingress.rate_headers import Headers
from deployments.ingress.slots import Slots
from deployments.ingress.strangers import Strangers
from deployments.stores.grants import networks
from deployments.stores.ids import new_id
from deployments.stores.key_rows import Key as StoredKey
from deployments.stores.limits.admission import LimitStore
from deployments.types.access import Grants

HEALTH = frozenset({"/v1/health", "/v1/health/ready"})
"""What tells no more than that we live is told to every address: load balancers ask it."""

PUBLIC = HEALTH | {"/docs", "/openapi.json"}
METRICS = "/v1/metrics"
SCRAPER = StoredKey("", "", is_admin=False, created_at="", grants=Grants(scopes=("metrics",)))
"""Stands for the key of who may see the metrics without one."""

PUBLIC_PREFIX = "/docs/"
PUT_OFF = ("/v1/inference/async", "/v1/tasks", "/v1/files", "/v1/batches")
"""Where nobody waits for the work itself."""

REQUEST_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")


class Gate:
    """Wraps the application. A key is checked before a byte of the body is read.

    With `is_behind_serve` the request's id is the one that the edge or Serve gave it, so that its
    logs and ours agree; otherwise it is new, whatever the client says.
    """

    def __init__(
        self,
        app: App,
        keys: KeyVerifier,
        args: IngressArgs,
        metrics: Metrics,
        *,
        audit: Audit | None = None,
        operation_of: Callable[[Scope], str] = lambda _: "",
        edge_secret: str = "",
        is_behind_serve: bool = False,
        limits: LimitStore | None = None,
    ) -> None:
        self._app = app
        self._peers = Peers(edge_secret, networks(args.addresses.trusted_proxies))
        self._addresses = Addresses(args.addresses)
        self._keys = Strangers(keys)
        self._bodies = BodyReader(args.max_body_bytes, args.request_timeout_s)
        self._slots = Slots(args.max_requests_in_flight, args.max_wait_s)
        self.meter = Meter(limits, args, metrics)
        self._metrics = metrics
        self._audit = audit
        self._operation_of = operation_of
        self._is_behind_serve = is_behind_serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; nothing that it raises leaves here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        exchange = self._exchange(scope, send)
        state = {"request_id": exchange.request_id, "started": started}
        scope["state"] = {**scope.get("state", {}), **state}
        entry = self._entry(scope, exchange)
        try:
            await self._admit(scope, receive, exchange)
        except ClientGone:
            exchange.status = CLIENT_GONE
        except RagError as exc:
            await _refuse(exc, exchange, scope)
        except Exception as exc:  # the last line: an error object instead of a traceback
            log_fault(exc, exchange.request_id)
            await _refuse(RagError(), exchange, scope)
        finally:
            if "ticket" in scope["state"]:
                scope["state"]["ticket"].close(exchange.status or CLIENT_GONE)
            duration_s = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.count_request(
                route, scope["method"], exchange.status or CLIENT_GONE, duration_s
            )
            if entry is not None:
                entry.be_called(self._operation_of(scope))
                entry.end(exchange.status or CLIENT_GONE)

    def _entry(self, scope: Scope, exchange: Exchange) -> Entry | None:
        """Return the call's entry of the audit log, which all that answers it finds."""
        if self._audit is None:
            return None
        entry = Entry(self._audit, exchange.request_id, scope["method"])
        CURRENT.set(entry)

        async def settle(status: int) -> list[Message] | None:
            try:
                await entry.settle(status)
            except RagError as exc:
                return _messages(exc, exchange, scope)
            return None

        exchange.settle = settle
        return entry

    def _exchange(self, scope: Scope, send: Send) -> Exchange:
        given = header(scope, b"x-request-id") if self._is_behind_serve else ""
        if REQUEST_ID.fullmatch(given):
            return Exchange(send, given, is_id_echoed=True)
        return Exchange(send, new_id("req"), is_id_echoed=False)

    async def _admit(self, scope: Scope, receive: Receive, exchange: Exchange) -> None:
        entry = CURRENT.get()
        path = path_of(scope)
        address = self._peers.address_of(scope)
        if entry is not None:
            entry.come_from(str(address))
        if path not in HEALTH:
            self._addresses.check(address, path)
        if path in PUBLIC or path.startswith(PUBLIC_PREFIX):
            await call_while_connected(self._app, scope, receive, exchange, b"")
            return
        scope["state"]["address"] = address
        key = scope["state"]["key"] = await self._key(scope, path, address)
        ticket = scope["state"]["ticket"] = self.meter.ticket(key, path)
        exchange.extra_headers = partial(_extra_headers, ticket, scope)
        exchange.before_end = partial(_settle, ticket, exchange)
        await ticket.admit()
        async with self._slots.one(key.tenant):
            is_work = scope["method"] == "POST" and not path.startswith(PUT_OFF)
            waiting = self._metrics.waiting.one() if is_work else nullcontext()
            with self._metrics.in_flight.track_inprogress(), waiting:
                await self._answer(scope, receive, exchange)

    async def _key(self, scope: Scope, path: str, address: Address) -> Key:
        if path == METRICS and self._addresses.may_scrape(address):
            return SCRAPER
        key = await self._keys.verify(bearer_of(scope), address)
        if (entry := CURRENT.get()) is not None:
            entry.belong_to(key)
        check_key(address, key.grants.addresses)
        return key

    async def _answer(self, scope: Scope, receive: Receive, exchange: Exchange) -> None:
        body = await self._bodies.read(scope, receive)
        scope["state"]["num_body_bytes"] = len(body)
        try:
            await call_while_connected(self._app, scope, receive, exchange, body)
        finally:
            self._bodies.release(len(body))


def _extra_headers(ticket: Ticket, scope: Scope) -> Headers:
    use = scope["state"].get("cache_use")
    return [*ticket.headers(), *(use.headers() if use is not None else ())]


async def _settle(ticket: Ticket, exchange: Exchange) -> None:
    ending = ticket.close(exchange.status)
    if ending is not None:
        await ended(ending)


async def _refuse(error: RagError, exchange: Exchange, scope: Scope) -> None:
    """Send the error object, unless a response is already on its way: that one stays cut."""
    if exchange.status:
        return
    fail(error)
    for message in _messages(error, exchange, scope):
        await exchange.send(message)


def _messages(error: RagError, exchange: Exchange, scope: Scope) -> list[Message]:
    status, headers, body = failure_of(error, exchange.request_id, scope)
    headers.append((b"content-length", str(len(body)).encode()))
    return [
        {"type": "http.response.start", "status": status, "headers": headers},
        {"type": "http.response.body", "body": body, "more_body": False},
    ]
