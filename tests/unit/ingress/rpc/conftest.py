"""The application behind the real gRPC server, and clients of it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import pytest

from deployments.config import RpcArgs
from deployments.ingress.asgi import App
from deployments.ingress.rpc.server import RpcServer
from tests.unit.ingress.conftest import KEY, Build, in_process

BEARER = (("authorization", f"Bearer {KEY}"),)


@dataclass(frozen=True)
class Served:
    server: RpcServer
    channel: grpc.aio.Channel
    http: httpx.AsyncClient

    @property
    def stub(self) -> Any:
        from deployments.ingress.proto.dify_pb2_grpc import DifyServiceStub

        return DifyServiceStub(self.channel)


Serving = Callable[..., AbstractAsyncContextManager[Served]]


@asynccontextmanager
async def serving_(app: App, **args: Any) -> AsyncIterator[Served]:
    server = RpcServer(app, RpcArgs(**args))
    await server.start()
    at = f"127.0.0.1:{server.port}"
    try:
        async with grpc.aio.insecure_channel(at) as channel, in_process(app) as http:
            yield Served(server, channel, http)
    finally:
        await server.stop(1)


@pytest.fixture
def serving() -> Serving:
    return serving_


@pytest.fixture
async def served(build: Build) -> AsyncIterator[Served]:
    async with serving_(build()) as served:
        yield served
