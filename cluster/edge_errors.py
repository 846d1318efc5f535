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


EDGE_ERRORS = (
    EdgeError(400, "Bad Request", "invalid_request_error", "invalid_request",
              "the request is not valid HTTP, or its headers exceed 31 KiB or 100 lines"),
    EdgeError(403, "Forbidden", "permission_error", "forbidden", "this is not allowed"),
    EdgeError(404, "Not Found", "invalid_request_error", "not_found", "there is no such route"),
    EdgeError(408, "Request Timeout", "invalid_request_error", "request_timeout",
              "the request did not arrive completely in time"),
    EdgeError(413, "Payload Too Large", "invalid_request_error", "payload_too_large",
              "the body is larger than this server accepts"),
    EdgeError(500, "Internal Server Error", "server_error", "internal_error", "internal error"),
    EdgeError(502, "Bad Gateway", "server_error", "engine_failed",
              "the server broke off before it answered; it is safe to retry a read", 1),
    EdgeError(503, "Service Unavailable", "server_error", "overloaded",
              "the server is starting, restarting or full; retry", 2),
    EdgeError(504, "Gateway Timeout", "server_error", "deadline_exceeded",
              "the server did not answer in time", 1),
)  # fmt: skip


def write_error_files(folder: Path) -> None:
    """Write `<folder>/<status>.http` for each status, as complete HTTP/1.1 responses."""
    for error in EDGE_ERRORS:
        (folder / f"{error.status}.http").write_bytes(_response(error))


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
