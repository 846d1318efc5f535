"""Webhooks to real servers: what they hear, from whom, how often, and how little they can do."""

import asyncio
import base64
import hashlib
import hmac
import json
import ssl
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from deployments.config import WebhookArgs
from deployments.errors import StoreUnavailable
from deployments.ingress.webhooks import delivering
from deployments.ingress.webhooks.delivering import MAX_AT_ONCE, MAX_OF_TENANT
from deployments.ingress.webhooks.signing import Signer
from tests.unit.ingress.webhooks.conftest import (
    LOOPBACK,
    PEPPER,
    Heard,
    Listener,
    Post,
    certificate,
    listening,
)

SERVER_ERROR = b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n"


def verified(secret: str, heard: Heard) -> bool:
    """Verify a signature as the specification of Standard Webhooks says."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    parts = (heard.headers["webhook-id"], heard.headers["webhook-timestamp"], heard.body.decode())
    mac = hmac.new(key, ".".join(parts).encode(), hashlib.sha256).digest()
    version, _, given = heard.headers["webhook-signature"].partition(",")
    assert abs(int(heard.headers["webhook-timestamp"]) - time.time()) < 30
    return version == "v1" and hmac.compare_digest(base64.b64decode(given), mac)


def ended(log: Sequence[object]) -> bool:
    return all(one.status != "PENDING" for one in log)  # type: ignore[attr-defined]


def tried(log: Sequence[object]) -> bool:
    return all(one.error for one in log)  # type: ignore[attr-defined]


async def test_server_is_told_signed_and_no_content(post: Post, listener: Listener):
    task_id = post.end(f"http://127.0.0.1:{listener.port}/hook?a=b")
    async with post.deliverer():
        await post.until(ended)
    [heard], [state] = listener.heard, post.log()
    assert heard.line == "POST /hook?a=b HTTP/1.1"
    assert heard.headers["host"] == f"127.0.0.1:{listener.port}"
    message = json.loads(heard.body)
    assert message == {
        "type": "task.cancelled",
        "timestamp": message["timestamp"],
        "data": {
            "task_id": task_id,
            "status": "CANCELLED",
            "completed_at": message["timestamp"],
        },
    }
    assert verified(Signer(PEPPER).secret("acme"), heard)
    assert not verified(Signer(PEPPER).secret("other"), heard)
    assert heard.headers["webhook-id"] == state.id
    assert (state.status, state.http_status, state.num_attempts) == ("DELIVERED", 204, 1)


async def test_failure_is_tried_again_with_the_same_message(post: Post, listener: Listener):
    post.end(f"http://127.0.0.1:{listener.port}/")
    listener.answers = [SERVER_ERROR, b"no http at all\r\n\r\n"]
    async with post.deliverer() as one:
        for error in ("http_500", "no_answer"):
            await post.until(lambda log, error=error: log[0].error == error)
            assert post.log()[0].status == "PENDING"
            post.make_due()
            one.nudge()
        await post.until(ended)
    assert [one.num_attempts for one in post.log()] == [3]
    assert len({heard.body for heard in listener.heard}) == 1
    assert len({heard.headers["webhook-id"] for heard in listener.heard}) == 1


async def test_gone_is_not_tried_again(post: Post, listener: Listener):
    post.end(f"http://127.0.0.1:{listener.port}/")
    listener.answers = [b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n"]
    async with post.deliverer():
        await post.until(ended)
    assert [(one.status, one.error) for one in post.log()] == [("FAILED", "http_410")]


async def test_redirect_is_not_followed(post: Post, listener: Listener):
    async with listening() as other:
        to = f"http://127.0.0.1:{other.port}/"
        head = f"HTTP/1.1 307 There\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n"
        listener.answers = [head.encode()]
        post.end(f"http://127.0.0.1:{listener.port}/")
        async with post.deliverer():
            await post.until(tried)
        assert other.heard == []
    assert [(one.status, one.error) for one in post.log()] == [("PENDING", "http_307")]


@pytest.mark.parametrize("url", ["http://127.0.0.1:{}/", "https://localhost:{}/"])
async def test_private_server_is_not_connected_to(post: Post, listener: Listener, url: str):
    post.end(url.format(listener.port))
    async with post.deliverer(WebhookArgs(allow_http=True)):
        await post.until(tried)
    assert (listener.heard, listener.num_cut) == ([], 0)
    assert post.log()[0].error == "refused_address"


async def test_name_that_means_another_address_later_leads_nowhere_else(post: Post):
    """DNS rebinding: the answer that is checked is the answer that is used."""
    asked: list[str] = []

    async def rebinding(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.2"] if len(asked) == 1 else ["127.0.0.1"]

    async with listening(host="127.0.0.1") as private:
        server = await asyncio.start_server(public := Listener(), "127.0.0.2", private.port)
        post.end(f"http://rebound.example:{private.port}/")
        args = WebhookArgs(allow_http=True, networks=("127.0.0.2/32",))
        async with post.deliverer(args, rebinding) as one:
            await post.until(ended)
            post.end(f"http://rebound.example:{private.port}/")
            one.nudge()
            await post.until(tried_or_heard)
        server.close()
        assert len(public.heard) == 1
        assert public.heard[0].headers["host"] == f"rebound.example:{private.port}"
        assert private.heard == []
    assert asked == ["rebound.example"] * 2
    assert [one.error for one in post.log()] == ["refused_address", ""]


def tried_or_heard(log: Sequence[object]) -> bool:
    return all(one.error or one.status == "DELIVERED" for one in log)  # type: ignore[attr-defined]


async def loopback(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


async def test_certificate_is_verified_for_the_name(post: Post, tmp_path: Path):
    server, client = certificate(tmp_path, "hooks.example")
    async with listening(server) as listener:
        post.end(f"https://hooks.example:{listener.port}/")
        async with post.deliverer(LOOPBACK, loopback, client):
            await post.until(ended)
        assert [one.status for one in post.log()] == ["DELIVERED"]
        assert listener.names == ["hooks.example"]
        post.end(f"https://other.example:{listener.port}/", "other")
        async with post.deliverer(LOOPBACK, loopback, client):
            await post.until(tried, "other")
        assert [one.error for one in post.log("other")] == ["certificate"]
        assert len(listener.heard) == 1


async def test_certificate_of_nobody_known_is_refused(post: Post, tmp_path: Path):
    server, _ = certificate(tmp_path, "hooks.example")
    async with listening(server) as listener:
        post.end(f"https://hooks.example:{listener.port}/")
        async with post.deliverer(LOOPBACK, loopback, ssl.create_default_context()):
            await post.until(tried)
        assert (listener.heard, post.log()[0].error) == ([], "certificate")


async def test_proxies_of_the_environment_are_not_used(
    post: Post, listener: Listener, monkeypatch: pytest.MonkeyPatch
):
    async with listening() as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        post.end(f"http://127.0.0.1:{listener.port}/")
        async with post.deliverer():
            await post.until(ended)
        assert (len(listener.heard), proxy.heard) == (1, [])


@pytest.mark.parametrize("what", ["silence", "slow head", "slow body"])
async def test_slow_answer_is_bounded(
    post: Post, listener: Listener, monkeypatch: pytest.MonkeyPatch, what: str
):
    monkeypatch.setattr(delivering, "ATTEMPT_S", 0.5)

    async def slow(writer: asyncio.StreamWriter) -> None:
        if what == "slow body":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        for _ in range(100):
            await asyncio.sleep(0.1)
            if what != "silence":
                writer.write(b"x")
                await writer.drain()

    listener.answers = [slow]
    post.end(f"http://127.0.0.1:{listener.port}/")
    began = time.monotonic()
    async with post.deliverer():
        await post.until(tried)
    assert time.monotonic() - began < 3
    assert [(one.status, one.error) for one in post.log()] == [("PENDING", "timeout")]


async def test_endless_answer_is_not_read_to_its_end(post: Post, listener: Listener):
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(bytes(65536))
            await writer.drain()
            sent += 65536

    listener.answers = [endless]
    post.end(f"http://127.0.0.1:{listener.port}/")
    async with post.deliverer():
        await post.until(ended)
    assert [one.status for one in post.log()] == ["DELIVERED"]
    assert sent < 32 * 1024 * 1024, "what its buffers take, and no more"
    assert listener.num_cut == 1


async def test_delivery_of_a_killed_deliverer_arrives_again(post: Post, listener: Listener):
    begun = asyncio.Event()

    async def hang(_: asyncio.StreamWriter) -> None:
        begun.set()
        await asyncio.sleep(30)

    listener.answers = [hang]
    post.end(f"http://127.0.0.1:{listener.port}/")
    async with post.deliverer():
        async with asyncio.timeout(10):
            await begun.wait()
    [state] = post.log()
    assert (state.status, state.num_attempts, state.error) == ("PENDING", 1, "")
    post.make_due()
    async with post.deliverer():
        await post.until(ended)
    assert [one.status for one in post.log()] == ["DELIVERED"]
    assert listener.heard[0].body == listener.heard[1].body


async def test_slow_servers_of_one_tenant_leave_room(post: Post, listener: Listener):
    at_once = most = 0

    async def slow(writer: asyncio.StreamWriter) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(1.5)
        at_once -= 1

    for _ in range(MAX_AT_ONCE * 2):
        post.end(f"http://127.0.0.1:{listener.port}/", "slow")
    listener.answers = [slow] * MAX_AT_ONCE * 2
    async with post.deliverer(), listening() as quick:
        while at_once < MAX_OF_TENANT:
            await asyncio.sleep(0.01)
        post.end(f"http://127.0.0.1:{quick.port}/", "quick")
        async with asyncio.timeout(1.4):
            while not quick.heard:
                await asyncio.sleep(0.01)
    assert most == MAX_OF_TENANT


async def test_deliverer_outlives_the_database(post: Post, listener: Listener, monkeypatch):
    whole, num = post.store.claim, 0

    def broken(*given: object) -> list:
        nonlocal num
        num += 1
        if num < 3:
            raise StoreUnavailable("the database did not answer")
        return whole(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(post.store, "claim", broken)
    post.end(f"http://127.0.0.1:{listener.port}/")
    async with post.deliverer():
        await post.until(ended)
    assert len(listener.heard) == 1
