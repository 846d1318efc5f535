"""Handle calls: Ray's failures as ours, and the events that come beside a call."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any, cast

import grpc
import pytest
import ray.exceptions
import ray.serve.exceptions
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RequestCancelledError,
)
from ray.serve.handle import DeploymentResponse

from deployments.delivery.inbox import Subscription
from deployments.errors import (
    ContextTooLong,
    DeadlineExceeded,
    EngineFailed,
    NoReplica,
    Overloaded,
    RagError,
)
from deployments.types import Delta, Finished, GenerationEvent, ReplyTo
from graphs import handles
from graphs.handles import (
    STARTING_RETRY_AFTER_S,
    Deadline,
    call,
    delivered,
    translate,
)


def across_a_handle(cause: Exception) -> Exception:
    """Return what a caller sees of an exception that a replica raised."""
    return RayTaskError("generate", "a long traceback with /paths", cause).as_instanceof_cause()


def test_typed_error_comes_out_as_it_went_in() -> None:
    sent = ContextTooLong("too long")
    sent.param = "messages"
    received = translate(across_a_handle(sent))
    assert type(received) is ContextTooLong
    assert (received.message, received.param) == ("too long", "messages")


def test_back_pressure_says_when_to_come_back() -> None:
    received = translate(BackPressureError(8, 8, 503, 2.5))
    assert isinstance(received, Overloaded)
    assert received.retry_after_s == 3


@pytest.mark.parametrize(
    "lost",
    [
        ActorDiedError(),
        ActorUnavailableError("gone", b"x" * 16),
        RequestCancelledError("r"),
        grpc.aio.AioRpcError(
            grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "socket closed"
        ),
    ],
)
def test_lost_replica_is_an_engine_failure(lost: Exception) -> None:
    received = translate(lost)
    assert isinstance(received, EngineFailed)
    assert received.retryable


def test_missing_deployment_is_overload() -> None:
    error = DeploymentUnavailableError(DeploymentID(name="Generator", app_name="ragserve"))
    assert isinstance(translate(error), NoReplica)


def test_unknown_failure_tells_nothing() -> None:
    received = translate(across_a_handle(ValueError("secret content")))
    assert type(received) is RagError
    assert "secret" not in received.message


def test_no_unknown_exception_in_serve() -> None:
    """Fails when Serve gains an exception that nobody has thought about."""
    known = {
        "BackPressureError",
        "DeploymentUnavailableError",
        "RayServeException",
        "RequestCancelledError",
        "gRPCStatusError",
        "ReplicaUnavailableError",
    }
    found = {
        name
        for name, value in vars(ray.serve.exceptions).items()
        if isinstance(value, type)
        and issubclass(value, Exception)
        and value.__module__ == "ray.serve.exceptions"
    }
    assert found <= known, found - known


class FakeResponse:
    """What a unary handle call returns, as far as it is used here."""

    def __init__(self, work: Awaitable[int]) -> None:
        self._work = asyncio.ensure_future(work)
        self._replica_result_future: asyncio.Future[None] = asyncio.Future()
        self.is_cancelled = False

    def take(self) -> None:
        """Do as a replica that takes the call."""
        self._replica_result_future.set_result(None)

    def __await__(self) -> Any:
        return self._work.__await__()

    def cancel(self) -> None:
        self.is_cancelled = True
        self._work.cancel()


@pytest.fixture
def subscription() -> Subscription:
    return Subscription(ReplyTo("127.0.0.1", 1, b"", 1))


async def read(
    response: FakeResponse, subscription: Subscription, num_choices: int = 1, timeout_s: float = 5
) -> list[GenerationEvent]:
    events = delivered(cast(Any, response), subscription, num_choices, Deadline(timeout_s))
    return [event async for event in events]


async def returns(value: int) -> int:
    return value


async def test_events_that_come_after_the_call_returned_are_not_lost(
    subscription: Subscription,
) -> None:
    response = FakeResponse(returns(3))
    loop = asyncio.get_running_loop()
    events = [Delta("a"), Delta("b"), Finished("stop", 2)]
    for index, event in enumerate(events):
        loop.call_later(0.02 * index, subscription.put, event)
    assert await read(response, subscription) == events


async def test_events_end_with_the_last_choice(subscription: Subscription) -> None:
    events = [Finished("stop", 1, 0), Delta("b", 1), Finished("length", 1, 1)]
    for event in events:
        subscription.put(event)
    assert await read(FakeResponse(returns(3)), subscription, num_choices=2) == events


async def test_failure_comes_after_the_events_before_it(subscription: Subscription) -> None:
    async def fails() -> int:
        raise EngineFailed("died")

    subscription.put(Delta("a"))
    events = delivered(cast(Any, FakeResponse(fails())), subscription, 1, Deadline(5))
    assert await anext(events) == Delta("a")
    with pytest.raises(EngineFailed, match="died"):
        await anext(events)


async def test_lost_events_are_an_engine_failure(
    subscription: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handles, "STRAGGLERS_TIMEOUT_S", 0.05)
    subscription.put(Delta("a"))
    with pytest.raises(EngineFailed, match="lost"):
        await read(FakeResponse(returns(2)), subscription)


async def test_deadline_and_departure_stop_the_work(subscription: Subscription) -> None:
    response = FakeResponse(asyncio.sleep(60, 0))
    with pytest.raises(DeadlineExceeded):
        await read(response, subscription, timeout_s=0.05)
    assert response.is_cancelled
    response = FakeResponse(asyncio.sleep(60, 0))
    subscription.put(Delta("a"))
    events = delivered(cast(Any, response), subscription, 1, Deadline(5))
    assert await anext(events) == Delta("a")
    await events.aclose()
    assert response.is_cancelled


async def test_call_that_no_replica_takes_says_when_to_come_back() -> None:
    response = FakeResponse(asyncio.sleep(60, 1))
    with pytest.raises(NoReplica, match="starting") as raised:
        await call(cast(Any, response), Deadline(60, max_wait_s=0.01))
    assert (raised.value.status, raised.value.retry_after_s) == (503, STARTING_RETRY_AFTER_S)
    assert response.is_cancelled


async def test_call_that_a_replica_took_may_last_to_its_deadline() -> None:
    response = FakeResponse(asyncio.sleep(0.05, 7))
    response.take()
    assert await call(cast(Any, response), Deadline(60, max_wait_s=0.01)) == 7
    late = FakeResponse(asyncio.sleep(60, 7))
    late.take()
    with pytest.raises(DeadlineExceeded):
        await call(cast(Any, late), Deadline(0.05, max_wait_s=0.01))


async def test_call_waits_for_the_response_among_its_arguments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No replica takes a call whose argument is still computed; that is not waiting for one."""
    monkeypatch.setattr(handles, "DeploymentResponse", FakeResponse)
    given = FakeResponse(asyncio.sleep(60, 0))
    given.take()
    response = FakeResponse(asyncio.sleep(0.05, 7))
    args = ("collection", given)
    assert await call(cast(Any, response), Deadline(60, max_wait_s=0.01), args) == 7
    untaken = FakeResponse(asyncio.sleep(60, 0))
    response = FakeResponse(asyncio.sleep(60, 7))
    with pytest.raises(NoReplica):
        await call(cast(Any, response), Deadline(60, max_wait_s=0.01), (untaken,))
    assert (response.is_cancelled, untaken.is_cancelled) == (True, True)
    given.cancel()


async def test_response_of_this_ray_says_if_a_replica_took_it() -> None:
    """`is_taken` reads what Serve does not promise."""
    future: asyncio.Future[Any] = asyncio.Future()
    response = DeploymentResponse(future, cast(Any, None), False)
    assert not handles.is_taken(response)
    future.set_result(object())
    assert handles.is_taken(response)


async def test_result_of_a_stream_is_its_last_item(monkeypatch: pytest.MonkeyPatch) -> None:
    class FakeStream(FakeResponse):
        async def __aiter__(self) -> AsyncIterator[int]:
            for item in (1, 2, await self):
                yield item

    monkeypatch.setattr(handles, "DeploymentResponseGenerator", FakeStream)
    response = FakeStream(asyncio.sleep(0.05, 7))
    response.take()
    assert await call(cast(Any, response), Deadline(60, max_wait_s=0.01)) == 7
    untaken = FakeStream(asyncio.sleep(60, 7))
    with pytest.raises(NoReplica):
        await call(cast(Any, untaken), Deadline(60, max_wait_s=0.01))
    assert untaken.is_cancelled
