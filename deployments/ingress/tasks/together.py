"""Many requests in one: each is a call of its own, and fails for itself."""

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson

from deployments.ingress.auth import Key
from deployments.ingress.tasks.inner import InnerAnswer, InnerCalls
from deployments.ingress.tasks.ordering import INFERENCE

COUNTED = ("prompt_tokens", "completion_tokens", "total_tokens")


async def answers_to(
    calls: InnerCalls, key: Key, requests: Sequence[Any], *, at_once: int, request_id: str
) -> dict[str, Any]:
    """Return what became of each request, in their order.

    Args:
        calls: into the application.
        key: in whose name they are asked.
        requests: bodies of `POST /v1/inference`.
        at_once: so many at the same time.
        request_id: of them all; each gets its index behind it.
    """
    room = asyncio.Semaphore(at_once)

    async def asked(index: int, body: Any) -> dict[str, Any]:
        async with room:
            if isinstance(body, dict) and body.get("stream"):
                return _refused(index)
            answer = await calls.call_as(
                key, INFERENCE, orjson.dumps(body), request_id=f"{request_id}-{index}"
            )
            return _item(index, answer)

    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(asked(i, body)) for i, body in enumerate(requests)]
    results = [one.result() for one in asking]
    usages = [one["output"]["usage"] for one in results if one["output"] is not None]
    return {
        "object": "inference.batch",
        "results": results,
        "num_failed": sum(one["error"] is not None for one in results),
        "usage": {name: sum(usage[name] for usage in usages) for name in COUNTED},
    }


def _item(index: int, answer: InnerAnswer) -> dict[str, Any]:
    said = orjson.loads(answer.body)
    is_good = answer.status < 300
    return {
        "index": index,
        "status": answer.status,
        "output": said if is_good else None,
        "error": None if is_good else said["error"],
    }


def _refused(index: int) -> dict[str, Any]:
    error = {
        "message": "stream: requests of a batch are not streamed",
        "type": "invalid_request_error",
        "code": "invalid_request",
        "param": f"requests[{index}].stream",
    }
    return {"index": index, "status": 400, "output": None, "error": error}
