"""Webhooks: who is told that a task has ended."""

from dataclasses import dataclass
from typing import Literal

DeliveryStatus = Literal["PENDING", "DELIVERED", "FAILED"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message to somebody's URL, as the table has it; times are in seconds since 1970.

    `event` is its type, such as `task.completed`; `subject` is the task's id. `error` says in one
    word why the last attempt was not heard.
    """

    id: str
    tenant: str
    subject: str
    event: str
    url: str
    status: DeliveryStatus
    num_attempts: int
    next_at: float
    http_status: int | None
    error: str
    created_at: float
    ended_at: float | None = None
