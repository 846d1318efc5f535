"""Tasks: work that outlives the connection which asked for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

TaskStatus = Literal["PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"]

ENDED: Final[tuple[TaskStatus, ...]] = ("COMPLETED", "FAILED", "CANCELLED")
"""Statuses of a task of which nothing is left to do."""

UNENDED: Final[tuple[TaskStatus, ...]] = ("PENDING", "RUNNING")

LOWEST, NORMAL, HIGHEST = 0, 5, 9
"""Priorities; of two tasks that could begin, the higher one does, then the older one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOrder:
    """What somebody wants to have done.

    `path` is that of the route that could do it at once, and `body` the JSON it would be sent.
    `collection` is the path of the one that it reads or writes; empty: none.
    Times are in seconds since 1970; 0 is none. `webhook` is told of the end; empty: nobody is.
    """

    tenant: str
    key_id: str
    path: str
    body: bytes = field(repr=False)
    collection: str = ""
    is_streamed: bool = False
    priority: int = NORMAL
    not_before: float = 0.0
    deadline: float = 0.0
    kept_s: float = 86_400.0
    webhook: str = ""


@dataclass(frozen=True, slots=True)
class TaskProgress:
    """How much of a task is done, in units of its own; a total of 0 is not known."""

    done: int = 0
    total: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskState:
    """A task as the table has it; times are in seconds since 1970.

    `attempt` counts how often it was begun. `output` is the JSON that the route answered; it
    is gone where the task is erased.
    """

    id: str
    tenant: str
    key_id: str
    path: str
    status: TaskStatus
    priority: int
    is_streamed: bool
    is_cancelling: bool
    is_erased: bool
    attempt: int
    created_at: float
    not_before: float = 0.0
    deadline: float = 0.0
    expires_at: float = 0.0
    started_at: float | None = None
    completed_at: float | None = None
    progress: TaskProgress = TaskProgress()
    output: bytes | None = field(default=None, repr=False)
    error: Mapping[str, Any] | None = None
    usage: Mapping[str, Any] | None = None
    webhook: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to do a task, until its worker is taken for dead or another attempt is made."""

    task_id: str
    attempt: int
    tenant: str
    key_id: str
    path: str
    body: bytes = field(repr=False)
    is_streamed: bool
    num_failures: int
    created_at: float
    deadline: float
    priority: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEnd:
    """How an attempt ended; `error` is the object of the API, without a request id."""

    status: TaskStatus
    output: bytes | None = field(default=None, repr=False)
    error: Mapping[str, Any] | None = None
    usage: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """One piece of what a streamed task said; numbers grow by one from 1, over all attempts."""

    number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many tasks could run now, do run, and wait for their time."""

    ready: int = 0
    running: int = 0
    scheduled: int = 0
