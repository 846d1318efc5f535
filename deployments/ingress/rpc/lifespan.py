"""The gRPC server lives as long as the application: ASGI's lifespan starts and ends it."""

from typing import Protocol

from deployments.ingress.asgi import App, Message, Receive, Scope, Send
from deployments.ingress.rpc.server import RpcServer

GRACE_S = 20.0
"""For calls that run while the replica ends."""


class Seat(Protocol):
    """Where it is known on which port the server listens."""

    def take(self, port: int) -> None:
        """Say that it listens."""
        ...

    def leave(self) -> None:
        """Say that it takes no more calls."""
        ...


def with_rpc(app: App, server: RpcServer, seat: Seat) -> App:
    """Return the application that also starts the server before it is ready, and ends it first."""

    async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        async def received() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                seat.leave()
                await server.stop(GRACE_S)
            return message

        async def sent(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                await server.start()
                seat.take(server.port)
            await send(message)

        await app(scope, received, sent)

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        await (lifespan if scope["type"] == "lifespan" else app)(scope, receive, send)

    return served
