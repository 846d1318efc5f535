"""Batches as tests put them in, through OpenAI's own client, and look at what became of them."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import openai

from tests.unit.ingress.fake_graph import FakeGraph

CHAT = "/v1/chat/completions"
MODEL = "fake-model"


def chat(number: int, **said: Any) -> dict[str, Any]:
    body = {"model": MODEL, "messages": [{"role": "user", "content": f"line {number}"}], **said}
    return {"custom_id": f"c{number}", "method": "POST", "url": CHAT, "body": body}


async def put(
    client: openai.AsyncOpenAI, lines: Sequence[Any], endpoint: Any = CHAT, **said: Any
) -> openai.types.Batch:
    text = b"\n".join(one if isinstance(one, bytes) else json.dumps(one).encode() for one in lines)
    file = await client.files.create(file=("in.jsonl", text), purpose="batch")
    return await client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h", **said
    )


async def end(client: openai.AsyncOpenAI, batch_id: str, wait_s: float = 20) -> openai.types.Batch:
    async with asyncio.timeout(wait_s):
        while True:
            batch = await client.batches.retrieve(batch_id)
            if batch.status in ("completed", "failed", "expired", "cancelled"):
                return batch
            await asyncio.sleep(0.02)


async def lines_of(client: openai.AsyncOpenAI, file_id: str | None) -> list[dict[str, Any]]:
    if file_id is None:
        return []
    text = (await client.files.content(file_id)).content
    assert len(text) == (await client.files.retrieve(file_id)).bytes
    return [json.loads(line) for line in text.splitlines()]


def asked(graph: FakeGraph) -> Counter[str]:
    return Counter(request.messages[-1].content for request in graph.requests if request.messages)


async def some_done(client: openai.AsyncOpenAI, batch_id: str, count: int) -> int:
    while True:
        batch = await client.batches.retrieve(batch_id)
        assert batch.request_counts is not None
        if batch.request_counts.completed >= count:
            return batch.request_counts.completed
        await asyncio.sleep(0.01)
