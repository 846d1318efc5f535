"""The gRPC server of one Ingress replica, on loopback, behind the edge.

It is our own: Serve's listens on every address, sends tracebacks to callers, decompresses whatever
comes, and knows no limits. Each method is a request to the application, with all that this means
for keys, limits and records. A message is not read before the key has been checked.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection

from deployments.config import RpcArgs
from deployments.errors import RagError
from deployments.ingress.asgi import App
from deployments.ingress.faults import log_fault
from deployments.ingress.proto.messages import DIFY_SERVICE, Error, TextDelta
from deployments.ingress.proto.stream import Splitter
from deployments.ingress.rpc.call import Call, scope_of
from deployments.ingress.rpc.ending import (
    CODES,
    Ending,
    broken_off,
    ending_of,
    late_ending_of,
    metadata_of,
)

LOOPBACK = "127.0.0.1"
WRITE_TIMEOUT_S = 30.0
"""For a caller to take one message of a stream."""

MAX_STREAMS = 100
MAX_CONCURRENT = 2048
PING_PERIOD_MS = 60_000
OK = 200

HEALTH_SERVICE: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
UNKNOWN_PATH = "/grpc"
"""No route is there."""


@dataclass(frozen=True, slots=True)
class Route:
    """The request that a method is."""

    path: str
    method: str = "POST"
    is_streamed: bool | None = None


ROUTES = {
    f"/{DIFY_SERVICE}/GenerateText": Route("/v1/inference", is_streamed=False),
    f"/{DIFY_SERVICE}/StreamText": Route("/v1/inference", is_streamed=True),
    f"/{DIFY_SERVICE}/VectorSearch": Route("/v1/data/search"),
}
UNKNOWN = Route(UNKNOWN_PATH)
READY = Route("/v1/health/ready", "GET")


class RpcServer:
    """Answers calls by an application."""

    def __init__(self, app: App, args: RpcArgs) -> None:
        self._app = app
        self._args = args
        self._running: set[asyncio.Task[None]] = set()
        self._server: Any = None
        self.port = 0

    async def start(self, port: int = 0) -> None:
        """Listen on a free port, or on a given one; of the running event loop."""
        self._server = grpc.aio.server(
            options=_options(self._args), maximum_concurrent_rpcs=MAX_CONCURRENT
        )
        if self._args.reflection:
            names = (DIFY_SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)
        self._server.add_generic_rpc_handlers((Handlers(self),))
        self.port = self._server.add_insecure_port(f"{LOOPBACK}:{port}")
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, let those that run end for a while, and wait for what they left."""
        if self._server is not None:
            await self._server.stop(grace_s)
        if self._running:
            await asyncio.wait(self._running, timeout=grace_s)

    async def answer(
        self, route: Route, requests: AsyncIterator[bytes] | None, context: Any
    ) -> bytes:
        """Answer a call with one message."""
        with self._calling(route, requests, context) as call:
            body = await call.whole()
            await self._check(call, route, body, context)
        return body

    async def stream(self, route: Route, requests: AsyncIterator[bytes], context: Any) -> None:
        """Answer a call with a stream of messages."""
        with self._calling(route, requests, context) as call:
            await call.begun()
            if call.status != OK:
                await self._check(call, route, await call.whole(), context)
            await self._pump(call, context)
            if not call.is_complete:
                await _abort(context, call, broken_off())

    async def _pump(self, call: Call, context: Any) -> None:
        splitter = Splitter()
        context.set_trailing_metadata(metadata_of(call.headers))
        async for piece in call.pieces():
            for message in splitter.split(piece):
                delta = TextDelta.FromString(message)
                if delta.HasField("error"):
                    await _abort(context, call, late_ending_of(delta.error))
                if message:  # the empty one only kept the connection open
                    await self._write(call, message, context)

    async def _write(self, call: Call, message: bytes, context: Any) -> None:
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await context.write(message)
        except TimeoutError:
            call.leave()  # at once: to abort may take as long as the caller does not read
            error = Error(message="the answer was not read in time", code="deadline_exceeded")
            await _abort(context, call, ending_of(504, error))

    async def health(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        """Say whether requests can be answered; needs no key, as over HTTP."""
        service = ""
        async for message in requests:
            service = _service_of(message)
            break
        if service not in ("", DIFY_SERVICE):
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service")
        with self._calling(READY, None, context) as call:
            await call.whole()
        state = "SERVING" if call.status == OK else "NOT_SERVING"
        answer: bytes = health_pb2.HealthCheckResponse(status=state).SerializeToString()
        return answer

    @contextmanager
    def _calling(
        self, route: Route, requests: AsyncIterator[bytes] | None, context: Any
    ) -> Iterator[Call]:
        """Ask the application; however the block ends, nobody waits for more of the answer."""
        scope = scope_of(context, route.method, route.path, route.is_streamed)
        call = Call(self._app, scope, requests)
        self._running.add(call.task)
        call.task.add_done_callback(self._running.discard)
        try:
            yield call
        finally:
            call.leave()

    async def _check(self, call: Call, route: Route, body: bytes, context: Any) -> None:
        """Abort a call unless it has succeeded."""
        if call.is_empty:
            await _abort(context, call, Ending(CODES[400], "a call carries one message"))
        if not call.is_complete:
            await _abort(context, call, broken_off())
        if call.status != OK:
            error = Error.FromString(body)
            ending = ending_of(call.status, error)
            if route is UNKNOWN and ending.code is grpc.StatusCode.NOT_FOUND:
                ending = Ending(grpc.StatusCode.UNIMPLEMENTED, "there is no such method")
            await _abort(context, call, ending)
        context.set_trailing_metadata(metadata_of(call.headers))


class Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Finds what answers a method. Every method takes a stream, of which one message is read."""

    def __init__(self, server: RpcServer) -> None:
        self._server = server

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler; methods that nothing has come to the application, too."""
        name = handler_call_details.method
        if name == f"/{HEALTH_SERVICE}/Check":
            return grpc.stream_unary_rpc_method_handler(_closed(self._server.health))
        if name == f"/{HEALTH_SERVICE}/Watch":
            return None  # unimplemented, which clients take for an answer
        route = ROUTES.get(name, UNKNOWN)
        if route.is_streamed:
            return grpc.stream_stream_rpc_method_handler(
                _closed(partial(self._server.stream, route))
            )
        return grpc.stream_unary_rpc_method_handler(_closed(partial(self._server.answer, route)))


def _service_of(message: bytes) -> str:
    try:
        service: str = health_pb2.HealthCheckRequest.FromString(message).service
    except DecodeError:
        return "?"
    return service


def _closed(answer: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Return what answers and tells a caller nothing of what nobody expected; gRPC would."""

    async def answered(requests: AsyncIterator[bytes], context: Any) -> Any:
        try:
            return await answer(requests, context)
        except grpc.aio.AbortError:
            raise
        except Exception as exc:  # the last line: a status without detail instead of the message
            log_fault(exc)
            await context.abort(grpc.StatusCode.INTERNAL, RagError().message)

    return answered


async def _abort(context: Any, call: Call, ending: Ending) -> NoReturn:
    metadata = (*ending.metadata, *metadata_of(call.headers))
    await context.abort(ending.code, ending.message, metadata)
    raise AssertionError("abort raises")


def _options(args: RpcArgs) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", args.max_message_bytes),
        ("grpc.max_send_message_length", args.max_message_bytes),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        ("grpc.keepalive_time_ms", PING_PERIOD_MS),
        ("grpc.keepalive_timeout_ms", PING_PERIOD_MS // 3),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", PING_PERIOD_MS // 2),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.so_reuseport", 0),
        # A small compressed message can be a huge one: none is taken, as over HTTP.
        ("grpc.compression_enabled_algorithms_bitset", 1),
    ]
