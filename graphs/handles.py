"""Every Ray call of the graphs: deadlines, cancellation, and Ray's errors as ours.

A bare ``asyncio.wait_for`` on a handle leaves the replica working; `call` and `delivered` cancel.
It does not know what is called or why.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncGenerator, Sequence
from typing import Any, cast

import grpc
import ray
from ray.exceptions import RayActorError, RayTaskError, TaskCancelledError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle, DeploymentResponse, DeploymentResponseGenerator
from ray.util import get_node_ip_address

from deployments.delivery.inbox import Subscription
from deployments.errors import DeadlineExceeded, EngineFailed, NoReplica, Overloaded, RagError
from deployments.types import Finished, GenerationEvent

log = logging.getLogger("ray.serve")

DEFAULT_RETRY_AFTER_S = 1

MAX_WAIT_S = 60.0
"""Longest wait for a replica that takes the call, where the configuration says no other."""

STARTING_RETRY_AFTER_S = 10

STRAGGLERS_TIMEOUT_S = 5.0
"""Longest wait for events that were sent before a call returned: they take another way."""

Response = DeploymentResponse[Any] | DeploymentResponseGenerator[Any]
"""What `handle.method.remote()` returns as Ray types it; the caller knows which of the two."""


class Deadline:
    """The instant at which a request's work must have ended, on the event loop's clock.

    Until a replica takes a call it waits `max_wait_s` at most: a model scaled to zero has to start.
    """

    def __init__(self, timeout_s: float, max_wait_s: float = MAX_WAIT_S) -> None:
        self.at = asyncio.get_running_loop().time() + timeout_s
        self.max_wait_s = max_wait_s


async def call(response: Response, deadline: Deadline, given: Sequence[Any] = ()) -> Any:
    """Await a handle call; stop the replica's work when the deadline or a cancellation comes.

    Args:
        response: of the call; of a stream, the last item is the result.
        deadline: of the request.
        given: the call's arguments; of a response among them, a replica has to take that first.

    Raises:
        NoReplica: none took the call in `max_wait_s`; it says when to come back.
        DeadlineExceeded: the deadline passed first.
        RagError: what the replica raised, or what its loss means to the caller.
    """
    first = next((one for one in given if isinstance(one, DeploymentResponse)), response)
    loop = asyncio.get_running_loop()
    refused = False

    def refuse_waiting() -> None:
        nonlocal refused
        if not is_taken(first):
            refused = True
            limit.reschedule(loop.time())

    timer = loop.call_later(deadline.max_wait_s, refuse_waiting)
    try:
        async with asyncio.timeout_at(deadline.at) as limit:
            if isinstance(response, DeploymentResponseGenerator):
                return [item async for item in response][-1]
            return await response
    except TimeoutError:
        cancel(first)
        cancel(response)
        if refused:
            error = NoReplica("no replica could take the request yet; the model may be starting")
            error.retry_after_s = STARTING_RETRY_AFTER_S
            raise error from None
        raise DeadlineExceeded("the request did not finish before its deadline") from None
    except asyncio.CancelledError:
        cancel(first)
        cancel(response)
        raise
    except Exception as exc:
        raise translate(exc) from exc
    finally:
        timer.cancel()


def is_taken(response: Response) -> bool:
    """Return whether a replica has taken a call; until then it waits here."""
    return bool(response._replica_result_future.done())


async def delivered(
    response: Response, subscription: Subscription, num_choices: int, deadline: Deadline
) -> AsyncGenerator[GenerationEvent]:
    """Yield the events of `Generator.deliver` until every choice has finished.

    Closing the iterator stops the replica's work.

    Raises:
        DeadlineExceeded: the deadline passed before the last event.
        EngineFailed: the events stopped coming before the last choice had finished.
        RagError: what the replica raised, or what its loss means to the caller.
    """
    work = asyncio.ensure_future(call(response, deadline))
    work.add_done_callback(lambda _: subscription.wake.set())
    try:
        num_unfinished = num_choices
        while num_unfinished > 0:
            async with asyncio.timeout(STRAGGLERS_TIMEOUT_S if work.done() else None):
                await subscription.wake.wait()
            for event in subscription.take():
                yield event
                num_unfinished -= isinstance(event, Finished)
            if work.done() and work.result() <= subscription.num_received:
                break
        with contextlib.suppress(RagError):  # nothing is missing any more
            await work
    except TimeoutError:
        raise EngineFailed("the end of the answer was lost") from None
    finally:
        if not work.done():
            cancel(response)  # not left to `call`: it may not have begun
            work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def streamed(response: Response, deadline: Deadline) -> AsyncGenerator[Any]:
    """Yield the items of a streaming handle call; closing the iterator stops the replica's work.

    Raises:
        DeadlineExceeded: the deadline passed before the last item.
        RagError: what the replica raised, or what its loss means to the caller.
    """
    items = aiter(cast("DeploymentResponseGenerator[Any]", response))
    has_ended = False
    try:
        while True:
            async with asyncio.timeout_at(deadline.at):
                try:
                    item = await anext(items)
                except StopAsyncIteration:
                    has_ended = True
                    return
            yield item
    except TimeoutError:
        raise DeadlineExceeded("the request did not finish before its deadline") from None
    except RagError:
        raise
    except Exception as exc:
        raise translate(exc) from exc
    finally:
        if not has_ended:
            cancel(response)


async def call_all(
    handle: DeploymentHandle[Any], method: str, deadline: Deadline, *args: Any
) -> list[Any]:
    """Call a method on every replica of a deployment; return the answers of those that gave one."""
    try:
        answers = await broadcast(handle, method, deadline, *args)
    except NoReplica:
        return []
    return [answer for answer in answers if not isinstance(answer, BaseException)]


async def call_every(
    handle: DeploymentHandle[Any], method: str, deadline: Deadline, *args: Any
) -> list[Any]:
    """Call a method on every running replica of a deployment; raise unless each one answers."""
    answers = await broadcast(handle, method, deadline, *args)
    for answer in answers:
        if isinstance(answer, Exception):
            raise translate(answer) from answer
    return answers


async def broadcast(
    handle: DeploymentHandle[Any], method: str, deadline: Deadline, *args: Any
) -> list[Any]:
    """Return each running replica's answer, or the exception in its place; starts none.

    Raises:
        NoReplica: none runs.
        DeadlineExceeded: not all answered in time.
    """
    try:
        async with asyncio.timeout_at(deadline.at):
            return await handle.broadcast(method, *args).results_async(return_exceptions=True)
    except TimeoutError:
        raise DeadlineExceeded("the replicas did not answer before the deadline") from None
    except Exception as exc:
        raise translate(exc) from exc


def plainly_pickled(handle: DeploymentHandle[Any]) -> DeploymentHandle[Any]:
    """Return the same handle without cloudpickle, which our messages of plain classes do not need.

    Source: of the arguments and results of an answer's calls, cloudpickle takes 0.09 ms longer each
    when its code has left the processor's cache, which it has between two requests.
    """
    return handle.options(request_serialization="pickle", response_serialization="pickle")


def has_peers() -> bool:
    """Return whether other processes may serve this graph: not in Serve's local testing mode."""
    return bool(ray.is_initialized())


def node_address() -> str:
    """Return the address at which other replicas reach this one."""
    return str(get_node_ip_address()) if ray.is_initialized() else "127.0.0.1"  # type: ignore[no-untyped-call]


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
        error = NoReplica("the model has no running replica; try again shortly")
        error.retry_after_s = DEFAULT_RETRY_AFTER_S
        return error
    if isinstance(cause, RayActorError | TaskCancelledError | grpc.aio.AioRpcError):
        return EngineFailed("the replica that worked on the request was lost; it is safe to retry")
    log.error("a replica raised %s", type(cause).__name__, exc_info=exc)
    return RagError()
