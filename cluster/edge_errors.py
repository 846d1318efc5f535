"""The answers the edge gives by itself, in the one error object of the API."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class EdgeError:
    """One status the edge answers with, and what the caller reads."""

    status: int
    reason: str
    kind: str
    code: str
    message: str
    retry_after_s: int | None = None
    grpc: int | None = None
    """The code that ends a call of gRPC; None: no call gets this."""


EDGE_ERRORS = (
    EdgeError(400, "Bad Request", "invalid_request_error", "invalid_request",
              "the request is not valid HTTP, or its headers exceed 31 KiB or 100 lines", grpc=3),
    EdgeError(403, "Forbidden", "permission_error", "forbidden", "this is not allowed", grpc=7),
    EdgeError(404, "Not Found", "invalid_request_error", "not_found", "there is no such route",
              grpc=12),
    EdgeError(408, "Request Timeout", "invalid_request_error", "request_timeout",
              "the request did not arrive completely in time", grpc=4),
    EdgeError(413, "Payload Too Large", "invalid_request_error", "payload_too_large",
              "the body is larger than this server accepts"),
    EdgeError(500, "Internal Server Error", "server_error", "internal_error", "internal error",
              grpc=13),
    EdgeError(501, "Not Implemented", "invalid_request_error", "unsupported",
              "compressed messages are not accepted", grpc=12),
    EdgeError(502, "Bad Gateway", "server_error", "engine_failed",
              "the server broke off before it answered; it is safe to retry a read", 1, grpc=14),
    EdgeError(503, "Service Unavailable", "server_error", "overloaded",
              "the server is starting, restarting or full; retry", 2, grpc=14),
    EdgeError(504, "Gateway Timeout", "server_error", "deadline_exceeded",
              "the server did not answer in time", 1, grpc=4),
)  # fmt: skip


def write_error_files(folder: Path) -> None:
    """Write `<status>.http` and `.grpc` into a folder, as complete HTTP/1.1 responses."""
    for error in EDGE_ERRORS:
        (folder / f"{error.status}.http").write_bytes(_response(error))
        if error.grpc is not None:
            (folder / f"{error.status}.grpc").write_bytes(_ending(error.grpc, error))


def _response(error: EdgeError) -> bytes:
    body = json.dumps(
        {
            "error": {
                "message": error.message,
                "type": error.kind,
                "code": error.code,
                "param": None,
                "request_id": None,
            }
        }
    )
    lines = [
        f"HTTP/1.1 {error.status} {error.reason}",
        "content-type: application/json",
        "cache-control: no-store",
        f"content-length: {len(body)}",
    ]
    if error.retry_after_s is not None:
        lines.append(f"retry-after: {error.retry_after_s}")
    return "\r\n".join([*lines, "", body]).encode("ascii")


def _ending(code: int, error: EdgeError) -> bytes:
    """Return a call's end: all of it is in the head, and HTTP says 200 whatever it says."""
    lines = [
        "HTTP/1.1 200 OK",
        "content-type: application/grpc",
        f"grpc-status: {code}",
        f"grpc-message: {error.message}",
        f"x-error-code: {error.code}",
        "content-length: 0",
    ]
    return "\r\n".join([*lines, "", ""]).encode("ascii")
