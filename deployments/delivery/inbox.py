"""The receiving end, in an Ingress replica: one port, a subscription for each generation."""

import asyncio
import hmac
import itertools
import secrets
from collections import deque
from typing import cast

import msgpack

from deployments.delivery.frames import event_of, unpacker
from deployments.types import GenerationEvent, ReplyTo

SECRET_BYTES = 32
INTRODUCTION_TIMEOUT_S = 5.0


class Subscription:
    """What has come for one generation and was not taken yet."""

    def __init__(self, reply_to: ReplyTo) -> None:
        self.reply_to = reply_to
        self.wake = asyncio.Event()
        self.num_received = 0
        self._events: deque[GenerationEvent] = deque()

    def put(self, event: GenerationEvent) -> None:
        """Add an event and wake the reader."""
        self._events.append(event)
        self.num_received += 1
        self.wake.set()

    def take(self) -> list[GenerationEvent]:
        """Return what has come since the last time."""
        self.wake.clear()
        events = list(self._events)
        self._events.clear()
        return events


class Inbox:
    """Listens on a port of its own for connections that know its secret (256 random bits).

    The secret travels inside requests, over Ray's authenticated handles, and nowhere else.
    """

    def __init__(self, host: str) -> None:
        """Listen on `host`, an address of this node, once `open` is called."""
        self._host = host
        self._secret = secrets.token_bytes(SECRET_BYTES)
        self._numbers = itertools.count(1)
        self._subscriptions: dict[int, Subscription] = {}
        self._server: asyncio.Task[asyncio.Server] | None = None

    async def open(self) -> Subscription:
        """Return a new subscription; its `reply_to` goes with the request."""
        if self._server is None or (self._server.done() and self._server.exception()):
            self._server = asyncio.create_task(self._listen())
        server = await asyncio.shield(self._server)
        port = server.sockets[0].getsockname()[1]
        number = next(self._numbers)
        subscription = Subscription(ReplyTo(self._host, port, self._secret, number))
        self._subscriptions[number] = subscription
        return subscription

    def close(self, subscription: Subscription) -> None:
        """Forget a subscription; whatever still comes for it is dropped."""
        self._subscriptions.pop(subscription.reply_to.subscription, None)

    async def stop(self) -> None:
        """Close the port; connections close with their senders."""
        if self._server is not None:
            (await self._server).close()

    async def _listen(self) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_server(self._sender, self._host, 0)

    def _sender(self) -> "Sender":
        return Sender(self._secret, self._subscriptions)


class Sender(asyncio.Protocol):
    """One connection: it says the secret first, or is closed."""

    def __init__(self, secret: bytes, subscriptions: dict[int, Subscription]) -> None:
        self._secret = secret
        self._subscriptions = subscriptions
        self._unpacker = unpacker()
        self._introduction = b""
        self._is_known = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give the peer some time to introduce itself."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by duck typing
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(INTRODUCTION_TIMEOUT_S, self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is left to do: the handle call tells the reader what became of its request."""
        self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Put every event into its subscription; a peer that sends anything else is cut off."""
        if not self._is_known:
            data = self._introduce(data)
        try:
            self._unpacker.feed(data)
            for fields in self._unpacker:
                subscription = self._subscriptions.get(fields[0])
                if subscription is not None:
                    subscription.put(event_of(fields))
        except (msgpack.UnpackException, ValueError, TypeError, LookupError):
            self._transport.abort()

    def _introduce(self, data: bytes) -> bytes:
        """Check the secret; returns what follows it."""
        self._introduction += data
        if len(self._introduction) < SECRET_BYTES:
            return b""
        said, rest = self._introduction[:SECRET_BYTES], self._introduction[SECRET_BYTES:]
        self._introduction = b""
        self._timer.cancel()
        if not hmac.compare_digest(said, self._secret):
            self._transport.abort()
            return b""
        self._is_known = True
        return rest
