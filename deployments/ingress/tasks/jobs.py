"""What a job is: one attempt at one task, and how it can fail."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import orjson

from deployments.errors import RagError
from deployments.ingress.errors import error_object, error_type
from deployments.ingress.tasks.inner import InnerAnswer
from deployments.types.tasks import Claim, TaskEnd, TaskProgress

Report = Callable[[TaskProgress], Awaitable[bool]]
"""Writes down how far an attempt is; False: it does not count any more."""

PASSING = {429, 502, 503}
"""Statuses after which the same request may succeed."""


class Job(Protocol):
    """Does tasks of one path."""

    async def __call__(self, claim: Claim, report: Report) -> TaskEnd:
        """Do a task to its end.

        Raises:
            AttemptFailed: it may be tried again.
            RagError: it failed; one that is `retryable` is tried again.
        """
        ...


class AttemptFailed(Exception):
    """An attempt failed that may be made again."""

    def __init__(self, error: Mapping[str, Any], after_s: float | None, is_blamed: bool) -> None:
        """Say how.

        Args:
            error: the object of the API.
            after_s: the pause that was asked for.
            is_blamed: whether it counts against the task; a limit that is full does not.
        """
        super().__init__(error.get("code"))
        self.error = error
        self.after_s = after_s
        self.is_blamed = is_blamed


def error_of(error: RagError) -> dict[str, Any]:
    """Return the object of an error as a task keeps it: without a request id."""
    return {**error_object(error, None)}


def end_of(answer: InnerAnswer) -> TaskEnd:
    """Return the end of a task that one route has answered.

    Raises:
        AttemptFailed: the same request may succeed later.
    """
    if answer.status < 300:
        usage = _object(answer.body).get("usage")
        has_usage = isinstance(usage, dict)
        return TaskEnd(status="COMPLETED", output=answer.body, usage=usage if has_usage else None)
    error = {**_unknown(answer.status), **_object(answer.body).get("error", {})}
    if answer.status in PASSING:
        raise AttemptFailed(error, answer.retry_after_s, is_blamed=answer.status != 429)
    return TaskEnd(status="FAILED", error=error)


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _unknown(status: int) -> dict[str, Any]:
    return {
        "message": "the route failed",
        "type": error_type(status),
        "code": "internal_error",
        "param": None,
    }
