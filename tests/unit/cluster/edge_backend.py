"""A real server for the edge to stand in front of; it notes what reaches it."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

NUM_CHUNKS = 4
CHUNK_PERIOD_S = 0.3


@dataclass
class Backend:
    port: int = 0
    aborted_after_s: list[float] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        self.paths.append(scope["path"])
        if scope["path"] == "/stream":
            await self._stream(send)
        elif scope["path"] == "/wait":
            await self._wait(receive)
        else:
            await self._echo(scope, receive, send)

    async def _echo(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        num_bytes, more = 0, True
        while more:
            message = await receive()
            num_bytes += len(message.get("body", b""))
            more = message.get("more_body", False)
        headers = [[name.decode(), value.decode()] for name, value in scope["headers"]]
        body = json.dumps({"headers": headers, "num_bytes": num_bytes}).encode()
        own = [(b"x-backend-port", str(self.port).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": own})
        await send({"type": "http.response.body", "body": body})

    async def _stream(self, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(NUM_CHUNKS):
            body = f"data: {number}\n\n".encode()
            await send({"type": "http.response.body", "body": body, "more_body": True})
            await asyncio.sleep(CHUNK_PERIOD_S)
        await send({"type": "http.response.body", "body": b""})

    async def _wait(self, receive: Any) -> None:
        started = time.monotonic()
        while (await receive())["type"] != "http.disconnect":
            pass
        self.aborted_after_s.append(time.monotonic() - started)


@contextmanager
def running_backend() -> Iterator[Backend]:
    backend = Backend()
    config = uvicorn.Config(
        backend, host="127.0.0.1", port=0, log_level="error", lifespan="off", proxy_headers=False
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    backend.port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield backend
    finally:
        server.should_exit = True
        thread.join(10)
