"""How an error looks on the wire: one object for every failure, whatever raised it.

It never holds what the client sent, a path, a traceback or an address: only our own messages.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from starlette.exceptions import HTTPException

from deployments.errors import InvalidRequest, NotFound, RagError

RETRY_AFTER_S = 1
MAX_PARAM_CHARS = 100

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}

Headers = list[tuple[bytes, bytes]]


class MethodNotAllowed(InvalidRequest):
    """The route exists, but not with this method."""

    code = "method_not_allowed"
    status = 405


def error_type(status: int) -> str:
    """Return the `type` that OpenAI clients expect for a status."""
    return _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")


def error_object(error: RagError, request_id: str | None) -> dict[str, Any]:
    """Return the inside of `{"error": …}`."""
    return {
        "message": error.message,
        "type": error_type(error.status),
        "code": error.code,
        "param": error.param,
        "request_id": request_id,
    }


def error_body(error: RagError, request_id: str | None) -> bytes:
    """Return the whole JSON body of an error response."""
    return orjson.dumps({"error": error_object(error, request_id)})


def error_headers(error: RagError, media_type: str = "application/json") -> Headers:
    """Return the headers that go with an error: when to retry, how to authenticate."""
    should_retry = b"true" if error.retryable else b"false"
    headers = [(b"content-type", media_type.encode()), (b"x-should-retry", should_retry)]
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.status in {429, 503}:
        seconds = error.retry_after_s or RETRY_AFTER_S
        headers.append((b"retry-after", str(seconds).encode()))
    return headers


def from_http_exception(exc: HTTPException) -> RagError:
    """Return our error for Starlette's: an unknown route, a wrong method, a broken form."""
    if exc.status_code == 404:
        return NotFound("there is nothing at this address")
    if exc.status_code == 405:
        return MethodNotAllowed("this address does not have this method")
    if exc.status_code < 500:
        return InvalidRequest("the request could not be read")
    return RagError()


def from_validation(errors: Sequence[Any], value: Any) -> InvalidRequest:
    """Return the first validation error, naming the field and not its content."""
    first = errors[0]
    location = first["loc"]
    param = field_path(location, value, is_missing=first["type"] == "missing")
    message = first["msg"].removeprefix("Value error, ")
    error = InvalidRequest(f"{param}: {message}" if param else message)
    error.param = param or None
    return error


def from_parameters(errors: Sequence[Any]) -> InvalidRequest:
    """Return the first validation error of a path or query parameter."""
    first = errors[0]
    param = str(first["loc"][-1])
    error = InvalidRequest(f"{param}: {first['msg'].removeprefix('Value error, ')}")
    error.param = param
    return error


def field_path(location: Iterable[str | int], value: Any, *, is_missing: bool = False) -> str:
    """Return `messages[0].content` for a location, without the names of union members in it."""
    path = ""
    parts = list(location)
    for position, part in enumerate(parts):
        is_last = position == len(parts) - 1
        if isinstance(part, int) and isinstance(value, list):
            path += f"[{part}]"
            value = value[part] if part < len(value) else None
        elif isinstance(value, dict) and (part in value or (is_missing and is_last)):
            path += f".{part}" if path else str(part)
            value = value.get(part)
    printable = "".join(c if c.isprintable() else "?" for c in path[:MAX_PARAM_CHARS])
    return printable.encode("ascii", "replace").decode()
