"""The sending end, in a Generator replica: one connection to each Ingress replica that asks."""

import asyncio
from typing import cast

from deployments.delivery.frames import packed
from deployments.errors import EngineFailed
from deployments.types import GenerationEvent, ReplyTo

CONNECT_TIMEOUT_S = 5.0


class Connection(asyncio.Protocol):
    """A connection to one inbox; what is sent within a turn of the event loop leaves as one."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._pending: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def is_open(self) -> bool:
        """Return whether the other end is still there."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say the secret first."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by duck typing
        self._transport.write(self._secret)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that nobody listens."""
        self._transport = None

    def send(self, subscription: int, event: GenerationEvent) -> None:
        """Send one event; raises EngineFailed when nobody can receive it."""
        if not self.is_open:
            raise EngineFailed("the ingress that asked is gone")
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(packed(subscription, event))

    def close(self) -> None:
        """Send what waits, then close."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        data = b"".join(self._pending)
        self._pending.clear()
        if self._transport is not None:
            self._transport.write(data)


class Outbox:
    """Keeps the connections; one that is lost is made anew by the next request that needs it."""

    def __init__(self) -> None:
        self._connections: dict[tuple[str, int, bytes], asyncio.Task[Connection]] = {}

    async def connection(self, reply_to: ReplyTo) -> Connection:
        """Return the connection to an inbox.

        Raises:
            EngineFailed: the inbox cannot be reached.
        """
        address = (reply_to.host, reply_to.port, reply_to.secret)
        task = self._connections.get(address)
        if task is None or (task.done() and not _is_usable(task)):
            task = asyncio.create_task(_connect(reply_to))
            self._forget_lost()
            self._connections[address] = task
        return await asyncio.shield(task)

    def close(self) -> None:
        """Close every connection."""
        for task in self._connections.values():
            if task.done() and _is_usable(task):
                task.result().close()
            task.cancel()
        self._connections.clear()

    def _forget_lost(self) -> None:
        """Drop connections to replicas that are gone."""
        kept = {a: t for a, t in self._connections.items() if not t.done() or _is_usable(t)}
        self._connections = kept


async def _connect(reply_to: ReplyTo) -> Connection:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, connection = await loop.create_connection(
                lambda: Connection(reply_to.secret), reply_to.host, reply_to.port
            )
    except OSError as exc:  # TimeoutError is one
        raise EngineFailed("the ingress that asked cannot be reached") from exc
    return connection


def _is_usable(task: asyncio.Task[Connection]) -> bool:
    return not task.cancelled() and task.exception() is None and task.result().is_open
