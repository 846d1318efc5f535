"""Both ends over a real socket."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from deployments.delivery import inbox as inbox_module
from deployments.delivery.inbox import Inbox, Subscription
from deployments.delivery.outbox import Connection, Outbox
from deployments.errors import EngineFailed
from deployments.types import Delta, Finished, ReplyTo

HOST = "127.0.0.1"


@pytest.fixture
async def inbox() -> AsyncIterator[Inbox]:
    inbox = Inbox(HOST)
    yield inbox
    await inbox.stop()


@pytest.fixture
async def outbox() -> AsyncIterator[Outbox]:
    outbox = Outbox()
    yield outbox
    outbox.close()
    await asyncio.sleep(0)


async def arrived(subscription: Subscription, count: int) -> list[object]:
    async with asyncio.timeout(5):
        found: list[object] = []
        while len(found) < count:
            await subscription.wake.wait()
            found += subscription.take()
    return found


async def test_each_subscription_gets_its_own_events_in_order(inbox: Inbox, outbox: Outbox) -> None:
    first, second = await inbox.open(), await inbox.open()
    connection = await outbox.connection(first.reply_to)
    assert await outbox.connection(second.reply_to) is connection
    for number in range(100):
        connection.send(first.reply_to.subscription, Delta(f"a{number}"))
        connection.send(second.reply_to.subscription, Delta(f"b{number}"))
    assert await arrived(first, 100) == [Delta(f"a{number}") for number in range(100)]
    assert await arrived(second, 100) == [Delta(f"b{number}") for number in range(100)]
    assert first.num_received == 100


async def test_closed_subscription_gets_nothing(inbox: Inbox, outbox: Outbox) -> None:
    gone, kept = await inbox.open(), await inbox.open()
    connection = await outbox.connection(gone.reply_to)
    inbox.close(gone)
    connection.send(gone.reply_to.subscription, Delta("x"))
    connection.send(kept.reply_to.subscription, Finished("stop", 1))
    assert await arrived(kept, 1) == [Finished("stop", 1)]
    assert gone.take() == []


async def refused(connection: Connection) -> bool:
    async with asyncio.timeout(5):
        while connection.is_open:
            await asyncio.sleep(0.01)
    return True


async def test_wrong_secret_is_cut_off(inbox: Inbox, outbox: Outbox) -> None:
    subscription = await inbox.open()
    forged = replace(subscription.reply_to, secret=bytes(32))
    connection = await outbox.connection(forged)
    connection.send(subscription.reply_to.subscription, Delta("forged"))
    assert await refused(connection)
    assert subscription.num_received == 0
    with pytest.raises(EngineFailed):
        connection.send(1, Delta("x"))


async def raw(reply_to: ReplyTo) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(reply_to.host, reply_to.port)


@pytest.mark.parametrize(
    "sent",
    [
        lambda secret: b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        lambda secret: secret + b"\xc1\xc1",
        lambda secret: secret + b"\x94\x01\x09\x01\x01",
        lambda secret: secret + b"\x07",
        lambda secret: secret + b"\x91" * 5000,
    ],
)
async def test_peer_that_sends_no_events_is_cut_off(
    inbox: Inbox, sent: Callable[[bytes], bytes]
) -> None:
    subscription = await inbox.open()
    reader, writer = await raw(subscription.reply_to)
    writer.write(sent(subscription.reply_to.secret))
    async with asyncio.timeout(5):
        assert await ended(reader)
    writer.close()
    assert subscription.num_received == 0


async def ended(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


async def test_silent_peer_is_cut_off(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "INTRODUCTION_TIMEOUT_S", 0.05)
    reader, writer = await raw((await inbox.open()).reply_to)
    async with asyncio.timeout(5):
        assert await ended(reader)
    writer.close()


async def test_lost_connection_is_made_anew(inbox: Inbox, outbox: Outbox) -> None:
    subscription = await inbox.open()
    lost = await outbox.connection(subscription.reply_to)
    lost.close()
    assert await refused(lost)
    connection = await outbox.connection(subscription.reply_to)
    assert connection is not lost
    connection.send(subscription.reply_to.subscription, Delta("again"))
    assert await arrived(subscription, 1) == [Delta("again")]


async def test_unreachable_inbox_is_an_engine_failure(outbox: Outbox) -> None:
    inbox = Inbox(HOST)
    reply_to = (await inbox.open()).reply_to
    await inbox.stop()
    with pytest.raises(EngineFailed):
        await outbox.connection(reply_to)


async def test_inbox_that_could_not_listen_tries_again() -> None:
    inbox = Inbox("192.0.2.1")  # not an address of this host (RFC 5737)
    with pytest.raises(OSError, match="assign"):
        await inbox.open()
    inbox._host = HOST
    assert (await inbox.open()).reply_to.port > 0
    await inbox.stop()


def test_secret_is_not_shown() -> None:
    assert "hush" not in repr(ReplyTo(HOST, 1, b"hush", 1))
