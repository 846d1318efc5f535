"""Streams chat completions and notes when each chunk came; bounded in count and time."""

import asyncio
import statistics
import time
from dataclasses import dataclass, field

import httpx
import orjson


@dataclass
class Streamed:
    """One streamed answer: its start, and the arrival time of each chunk that carried text."""

    started_s: float
    arrivals_s: list[float] = field(default_factory=list)
    completion_tokens: int = 0

    @property
    def first_s(self) -> float:
        return self.arrivals_s[0] - self.started_s

    @property
    def gaps_s(self) -> list[float]:
        pairs = zip(self.arrivals_s, self.arrivals_s[1:], strict=False)
        return [after - before for before, after in pairs]


async def stream_chat(client: httpx.AsyncClient, body: dict[str, object]) -> Streamed:
    """Send one streaming chat request and read it to its end."""
    result = Streamed(time.perf_counter())
    async with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as got:
        got.raise_for_status()
        async for line in got.aiter_lines():
            if not line.startswith("data: {"):
                continue
            now = time.perf_counter()
            chunk = orjson.loads(line[6:])
            if "error" in chunk:
                raise RuntimeError(chunk["error"]["message"])
            if chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
                result.arrivals_s.append(now)
            if chunk.get("usage"):
                result.completion_tokens = chunk["usage"]["completion_tokens"]
    return result


async def stream_many(
    url: str, headers: dict[str, str], bodies: list[dict[str, object]]
) -> tuple[list[Streamed], float]:
    """Send all bodies at once; return the answers and the seconds the whole took."""
    limits = httpx.Limits(max_connections=len(bodies))
    async with httpx.AsyncClient(
        base_url=url, headers=headers, timeout=600, limits=limits
    ) as client:
        began = time.perf_counter()
        answers = await asyncio.gather(*(stream_chat(client, body) for body in bodies))
        return list(answers), time.perf_counter() - began


def percentile(values: list[float], percent: int) -> float:
    """Return a percentile of some values by linear interpolation."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
