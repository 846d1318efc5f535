"""Every Ray call of the graphs: deadlines, cancellation, and Ray's errors as ours.

A bare ``asyncio.wait_for`` on a handle leaves the replica working; `call` and `stream` cancel it.
It does not know what is called or why.
"""

import asyncio
import logging
import math
from collections.abc import AsyncGenerator
from typing import Any, cast

import grpc
from ray.exceptions import RayActorError, RayTaskError, TaskCancelledError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle, DeploymentResponse, DeploymentResponseGenerator

from deployments.errors import DeadlineExceeded, EngineFailed, Overloaded, RagError

log = logging.getLogger("ray.serve")

DEFAULT_RETRY_AFTER_S = 1

Response = DeploymentResponse[Any] | DeploymentResponseGenerator[Any]
"""What `handle.method.remote()` returns as Ray types it; the caller knows which of the two."""


class Deadline:
    """The instant at which a request's work must have ended, on the event loop's clock."""

    def __init__(self, timeout_s: float) -> None:
        self.at = asyncio.get_running_loop().time() + timeout_s


async def call(response: Response, deadline: Deadline) -> Any:
    """Await a handle call; stop the replica's work when the deadline or a cancellation comes.

    Raises:
        DeadlineExceeded: the deadline passed first.
        RagError: what the replica raised, or what its loss means to the caller.
    """
    try:
        async with asyncio.timeout_at(deadline.at):
            return await cast("DeploymentResponse[Any]", response)
    except TimeoutError:
        cancel(response)
        raise DeadlineExceeded("the request did not finish before its deadline") from None
    except asyncio.CancelledError:
        cancel(response)
        raise
    except Exception as exc:
        raise translate(exc) from exc


async def stream(response: Response, deadline: Deadline) -> AsyncGenerator[Any]:
    """Yield a streaming call's items; closing the iterator stops the replica's work.

    Raises:
        DeadlineExceeded: the deadline passed before the last item.
        RagError: what the replica raised, or what its loss means to the caller.
    """
    has_expired = False

    def expire() -> None:
        nonlocal has_expired
        has_expired = True
        cancel(response)

    timer = asyncio.get_running_loop().call_at(deadline.at, expire)
    try:
        async for item in cast("DeploymentResponseGenerator[Any]", response):
            yield item
    except Exception as exc:
        if has_expired:
            raise DeadlineExceeded("the request did not finish before its deadline") from None
        raise translate(exc) from exc
    finally:
        timer.cancel()
        cancel(response)


async def call_all(handle: DeploymentHandle[Any], method: str, deadline: Deadline) -> list[Any]:
    """Call a method on every replica of a deployment; return the answers of those that gave one."""
    try:
        async with asyncio.timeout_at(deadline.at):
            answers = await handle.broadcast(method).results_async(return_exceptions=True)
    except TimeoutError:
        raise DeadlineExceeded("the replicas did not answer before the deadline") from None
    except Exception as exc:
        raise translate(exc) from exc
    return [answer for answer in answers if not isinstance(answer, BaseException)]


def cancel(response: Response) -> None:
    """Stop the replica's work on a call; nothing happens when it has ended."""
    response.cancel()  # type: ignore[no-untyped-call]


def translate(exc: Exception) -> RagError:
    """Return our error for whatever a handle call raised."""
    cause = exc.cause if isinstance(exc, RayTaskError) else exc
    if isinstance(cause, RagError):
        return cause
    if isinstance(cause, BackPressureError):
        error: RagError = Overloaded("every replica's queue is full; try again shortly")
        error.retry_after_s = math.ceil(cause.retry_after_s or DEFAULT_RETRY_AFTER_S)
        return error
    if isinstance(cause, DeploymentUnavailableError):
        error = Overloaded("the model has no running replica; try again shortly")
        error.retry_after_s = DEFAULT_RETRY_AFTER_S
        return error
    if isinstance(cause, RayActorError | TaskCancelledError | grpc.aio.AioRpcError):
        return EngineFailed("the replica that worked on the request was lost; it is safe to retry")
    log.error("a replica raised %s", type(cause).__name__, exc_info=exc)
    return RagError()
