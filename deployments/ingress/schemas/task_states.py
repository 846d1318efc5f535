"""Tasks as the API shows them."""

from typing import Any, Literal

import orjson
from pydantic import BaseModel

from deployments.ingress.schemas.generated import Inference
from deployments.stores.ids import microseconds, utc_of
from deployments.types.tasks import TaskState, TaskStatus


class TaskError(BaseModel):
    """Why a task failed."""

    message: str
    type: str
    code: str | None
    param: str | None


class TaskReport(BaseModel):
    """How much is done of a task that has parts; a total of 0 is not known."""

    done: int
    total: int
    failed: int


class TaskInfo(BaseModel):
    """A task; `output` is what the route would have answered, `path` says which.

    `erased`: what it was asked and said is gone, for it may have held what was erased.
    """

    task_id: str
    object: Literal["task"]
    status: TaskStatus
    path: str
    priority: int
    stream: bool
    cancelling: bool
    erased: bool
    attempts: int
    progress: TaskReport
    output: Any
    error: TaskError | None
    usage: dict[str, Any] | None
    webhook: str | None
    created_at: str
    not_before: str | None
    deadline: str | None
    started_at: str | None
    completed_at: str | None
    expires_at: str | None


class TaskList(BaseModel):
    """A page of tasks without their outputs, the newest first."""

    object: Literal["list"]
    data: list[TaskInfo]
    has_more: bool


class BatchItem(BaseModel):
    """What became of one request: its `output`, or its `error`."""

    index: int
    status: int
    output: Inference | None
    error: dict[str, Any] | None


class BatchResult(BaseModel):
    """What became of each request, in their order."""

    object: Literal["inference.batch"]
    results: list[BatchItem]
    num_failed: int
    usage: dict[str, int]


def task_of(state: TaskState) -> dict[str, Any]:
    """Return a task as the API shows it, to be written as JSON."""
    progress = state.progress
    return {
        "task_id": state.id,
        "object": "task",
        "status": state.status,
        "path": state.path,
        "priority": state.priority,
        "stream": state.is_streamed,
        "cancelling": state.is_cancelling and state.status == "RUNNING",
        "erased": state.is_erased,
        "attempts": state.attempt,
        "progress": {
            "done": progress.done,
            "total": progress.total,
            "failed": progress.failed,
        },
        "output": None if state.output is None else orjson.Fragment(state.output),
        "error": state.error,
        "usage": state.usage,
        "webhook": state.webhook or None,
        "created_at": _time(state.created_at),
        "not_before": _time(state.not_before),
        "deadline": _time(state.deadline),
        "started_at": _time(state.started_at),
        "completed_at": _time(state.completed_at),
        "expires_at": _time(state.expires_at),
    }


def _time(seconds: float | None) -> str | None:
    return utc_of(microseconds(seconds)) if seconds else None
