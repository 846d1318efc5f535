"""How an HTTP answer ends a call: with which code and message, and what goes along as metadata."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import grpc

from deployments.errors import EngineFailed, RagError
from deployments.ingress.errors import error_object
from deployments.ingress.proto.messages import Error, Message
from deployments.ingress.proto.values import message_of

Headers = Iterable[tuple[bytes, bytes]]

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.ABORTED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    424: grpc.StatusCode.FAILED_PRECONDITION,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
    507: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
"""Source: google/rpc/code.proto, which names HTTP statuses; what it does not, by its meaning."""

PASSED_ON = (b"retry-after", b"x-cache", b"x-ratelimit-", b"x-request-id", b"x-should-retry")
"""Beginnings of the headers that a caller over gRPC gets, too."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a call ends that has not succeeded."""

    code: grpc.StatusCode
    message: str
    metadata: tuple[tuple[str, str], ...] = ()


def metadata_of(headers: Headers) -> tuple[tuple[str, str], ...]:
    """Return what of an answer's headers the caller is told."""
    told = ((n.lower(), v) for n, v in headers if n.lower().startswith(PASSED_ON))
    return tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in told)


def ending_of(status: int, error: Message) -> Ending:
    """Return how a call ends for an HTTP status and the error that came with it."""
    pairs = [("x-error-code", error.code)]
    if error.HasField("param"):
        pairs.append(("x-error-param", error.param))
    return Ending(CODES.get(status, grpc.StatusCode.INTERNAL), error.message, tuple(pairs))


def late_ending_of(error: Message) -> Ending:
    """Return the same for an error that ended a stream, whose status nobody has said."""
    return ending_of(_statuses().get(error.code, RagError.status), error)


def broken_off() -> Ending:
    """Return how a call ends whose answer has no end."""
    error = EngineFailed("the server broke off before the answer was complete")
    return ending_of(error.status, message_of(error_object(error, None), Error))


@cache
def _statuses() -> dict[str, int]:
    return {kind.code: kind.status for kind in _tree(RagError)}


def _tree(kind: type[RagError]) -> Iterator[type[RagError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from _tree(narrower)
