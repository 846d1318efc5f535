"""Ray's failures as ours."""

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

from deployments.errors import ContextTooLong, EngineFailed, Overloaded, RagError
from graphs.handles import translate


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
    assert isinstance(translate(error), Overloaded)


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
