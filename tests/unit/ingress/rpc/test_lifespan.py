"""The server's life: from the application's start to its end."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from deployments.config import RpcArgs
from deployments.ingress.rpc.lifespan import with_rpc
from deployments.ingress.rpc.server import RpcServer
from tests.unit.ingress.conftest import Build


@dataclass
class Seats:
    ports: list[int] = field(default_factory=list)

    def take(self, port: int) -> None:
        self.ports.append(port)

    def leave(self) -> None:
        self.ports.clear()


async def can_be_reached(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def test_server_listens_while_the_application_lives(build: Build) -> None:
    seats, said = Seats(), asyncio.Queue[str]()
    heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    app = build()
    served = with_rpc(app, RpcServer(app, RpcArgs()), seats)

    async def send(message: Any) -> None:
        await said.put(message["type"])

    life = asyncio.create_task(served({"type": "lifespan", "state": {}}, heard.get, send))
    await heard.put({"type": "lifespan.startup"})
    assert await said.get() == "lifespan.startup.complete"
    [port] = seats.ports
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert await check(b"") == b"\x08\x01"
    await heard.put({"type": "lifespan.shutdown"})
    assert await said.get() == "lifespan.shutdown.complete"
    await life
    assert not seats.ports
    assert not await can_be_reached(port)


async def test_application_that_does_not_start_has_no_server() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.failed", "message": "no"})

    seats = Seats()
    served = with_rpc(broken, RpcServer(broken, RpcArgs()), seats)

    async def nothing(*_: Any) -> Any:
        return None

    await served({"type": "lifespan"}, nothing, nothing)
    assert not seats.ports


def test_missing_stubs_are_said_how_to_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib
    import sys

    from deployments.ingress.proto import messages

    monkeypatch.setitem(sys.modules, messages.STUBS, None)
    with pytest.raises(ImportError, match="make stubs"):
        importlib.reload(messages)
