"""A client that costs little: raw bytes and their arrival times first, meaning afterwards.

It shares the machine with what it measures, so it does nothing per chunk but look at the clock.
"""

import asyncio
import statistics
import time
from bisect import bisect_left
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any, TypeVar
from urllib.parse import urlsplit

import orjson
import uvloop

Result = TypeVar("Result")

LAST_CHUNK = b"\r\n0\r\n\r\n"
TIMEOUT_S = 300


@dataclass
class Reply:
    """One answer as it came: when it was asked for, and each piece with its arrival time."""

    started_s: float
    times_s: list[float] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return self.times_s[-1] - self.started_s

    @cached_property
    def raw(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def status(self) -> int:
        return int(self.raw[9:12])

    def json(self) -> Any:
        """Return the body of an answer that is not a stream."""
        return orjson.loads(self.raw.partition(b"\r\n\r\n")[2])

    @cached_property
    def events(self) -> list[tuple[float, bytes]]:
        """Return every SSE block with the time at which it was complete."""
        if b"\r\n\r\n" not in self.raw or self.status != 200:
            raise RuntimeError(f"not a stream: {self.raw[:400]!r}")
        body, sizes, times = self._unchunked()
        blocks = body.split(b"\n\n")[:-1]
        ends = accumulate(len(block) + 2 for block in blocks)
        return [
            (times[bisect_left(sizes, end)], block) for block, end in zip(blocks, ends, strict=True)
        ]

    def _unchunked(self) -> tuple[bytes, list[int], list[float]]:
        """Return the body, its length after each HTTP chunk, and when each chunk was whole."""
        arrived = list(accumulate(len(piece) for piece in self.pieces))
        body, sizes, times = bytearray(), [], []
        at = self.raw.index(b"\r\n\r\n") + 4
        while True:
            start = self.raw.index(b"\r\n", at) + 2
            end = start + int(self.raw[at : start - 2], 16)
            if end == start:
                return bytes(body), sizes, times
            body += self.raw[start:end]
            sizes.append(len(body))
            times.append(self.times_s[bisect_left(arrived, end)])
            at = end + 2


@dataclass
class Streamed:
    """One streamed chat: seconds until each chunk with text, and the tokens it says it has."""

    arrivals_s: list[float]
    completion_tokens: int

    @classmethod
    def of(cls, reply: Reply) -> "Streamed":
        arrivals, num_tokens = [], 0
        for at, event in reply.events:
            if not event.startswith(b"data: {"):
                continue
            chunk = orjson.loads(event[6:])
            if "error" in chunk:
                raise RuntimeError(chunk["error"]["message"])
            if chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
                arrivals.append(at - reply.started_s)
            if chunk.get("usage"):
                num_tokens = chunk["usage"]["completion_tokens"]
        return cls(arrivals, num_tokens)

    @property
    def first_s(self) -> float:
        return self.arrivals_s[0]

    @property
    def gaps_s(self) -> list[float]:
        pairs = zip(self.arrivals_s, self.arrivals_s[1:], strict=False)
        return [after - before for before, after in pairs]


class Connection(asyncio.Protocol):
    """One keep-alive HTTP/1.1 connection, one request at a time."""

    def __init__(self) -> None:
        self._done: asyncio.Future[Reply] | None = None
        self._reply = Reply(0)
        self._left = -1
        self._tail = b""
        self.is_open = True

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    async def ask(self, request: bytes) -> Reply:
        """Send one whole request and return the whole answer."""
        self._done = asyncio.get_running_loop().create_future()
        self._left, self._tail = -1, b""
        self._reply = Reply(time.perf_counter())
        self._transport.write(request)
        return await asyncio.wait_for(self._done, TIMEOUT_S)

    def data_received(self, data: bytes) -> None:
        reply = self._reply
        reply.times_s.append(time.perf_counter())
        reply.pieces.append(data)
        if self._left > 0:
            self._left -= len(data)
        elif self._left < 0:
            self._tail = (self._tail + data)[-len(LAST_CHUNK) :]
            if len(reply.pieces) == 1:
                self._left = _bytes_left(data)
        is_chunked_end = self._left < 0 and self._tail == LAST_CHUNK
        if (is_chunked_end or self._left == 0) and self._done and not self._done.done():
            self._done.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._done and not self._done.done():
            self._done.set_exception(ConnectionError("the server closed the connection"))

    def close(self) -> None:
        self._transport.close()


def _bytes_left(first: bytes) -> int:
    """Return what a body of known length still lacks after its first piece; -1 for a stream."""
    head, _, body = first.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:]) - len(body)
    return -1


class Client:
    """A number of open connections to one server."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._head = f"host: {parts.netloc}\r\nauthorization: Bearer {key}\r\nx-cache: off\r\n"
        self._open: list[Connection] = []

    def request(self, path: str, body: object = None) -> bytes:
        """Return the bytes of a POST with a JSON body, or of a GET."""
        content = b"" if body is None else orjson.dumps(body)
        length = f"content-type: application/json\r\ncontent-length: {len(content)}\r\n"
        head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\n{self._head}"
        return f"{head}{length if content else ''}\r\n".encode() + content

    async def connections(self, count: int) -> list[Connection]:
        """Return that many open connections; the edge closes those that were idle for long."""
        loop = asyncio.get_running_loop()
        self._open = [one for one in self._open if one.is_open]
        while len(self._open) < count:
            _, one = await loop.create_connection(Connection, self._host, self._port)
            self._open.append(one)
        return self._open[:count]

    async def at_once(self, requests: Sequence[bytes]) -> tuple[list[Reply], float]:
        """Send all requests at the same time; return the answers and the seconds of the whole."""
        connections = await self.connections(len(requests))
        started = time.perf_counter()
        asked = (one.ask(request) for one, request in zip(connections, requests, strict=True))
        replies = await asyncio.gather(*asked)
        return replies, max(reply.times_s[-1] for reply in replies) - started

    async def in_turn(self, request: bytes, count: int) -> list[float]:
        """Send a request `count` times, one after another; return the seconds each took."""
        (one,) = await self.connections(1)
        return [_ok(await one.ask(request)).seconds for _ in range(count)]

    async def saturate(self, requests: Sequence[bytes], num_connections: int) -> float:
        """Send the requests over busy connections; return how many were answered per second."""
        waiting = iter(requests)

        async def work(one: Connection) -> None:
            for request in waiting:
                _ok(await one.ask(request))

        connections = await self.connections(num_connections)
        started = time.perf_counter()
        await asyncio.gather(*(work(one) for one in connections))
        return len(requests) / (time.perf_counter() - started)

    def close(self) -> None:
        for one in self._open:
            one.close()
        self._open.clear()


def _ok(reply: Reply) -> Reply:
    if reply.status not in (200, 202):
        raise RuntimeError(f"the server answered {reply.raw[:400]!r}")
    return reply


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run on uvloop, as the replicas do."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def percentile(values: Sequence[float], percent: int) -> float:
    """Return a percentile of some values by linear interpolation."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def median_ms(seconds: Sequence[float]) -> float:
    return statistics.median(seconds) * 1000
