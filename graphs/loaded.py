"""A model that was loaded at run time, and the handles to its replicas."""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.types import Adapter, ModelState
from graphs.model_app import handle_of

Handle = DeploymentHandle[Any]

LEARN_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Loaded:
    """A loaded model and the handles to its replicas, made once; an adapter has its base's."""

    id: str
    handle: Handle
    deliver: Handle
    complete: Handle
    embed: Handle
    rerank: Handle
    adapter: Adapter | None = None

    @classmethod
    def of(cls, state: ModelState) -> "Loaded":
        """Return the model with its handles, which ask nothing before they are used."""
        return cls.behind(state.id, handle_of(state))

    @classmethod
    def behind(cls, model: str, handle: Handle) -> "Loaded":
        """Return the model of the replicas behind a handle."""
        deliver, complete, rerank = (
            handle.options(method_name=one, stream=True)
            for one in ("deliver", "complete", "rerank_apart")
        )
        return cls(model, handle, deliver, complete, handle.options(method_name="embed"), rerank)


async def knows_replicas(handle: Handle, wait_s: float) -> bool:
    """Return whether a handle knows its replicas, which a new one does a moment after it is made.

    Before that, a call of all of them reaches none.
    """
    loop = asyncio.get_running_loop()
    handle = handle.options(method_name="vitals")  # has its router begin to learn
    until = loop.time() + wait_s
    while not handle.running_replicas_populated():
        if loop.time() > until:
            return False
        await asyncio.sleep(LEARN_POLL_S)
    return True


async def closed(handle: Handle) -> None:
    """Let go of what a handle keeps of Serve: a router, and its questions to the controller."""
    with contextlib.suppress(Exception):  # nothing of it matters any more
        await handle.shutdown_async()  # type: ignore[no-untyped-call]
