"""Tasks as rows, and back; times become microseconds."""

from typing import Any, cast

from sqlalchemy import Row

from deployments.stores.ids import microseconds
from deployments.types.tasks import Claim, TaskOrder, TaskProgress, TaskState, TaskStatus


def values_of(order: TaskOrder, id_: str, now: int) -> dict[str, Any]:
    """Return the row of a new task."""
    return {
        "id": id_,
        "tenant": order.tenant,
        "key_id": order.key_id,
        "path": order.path,
        "collection": order.collection,
        "status": "PENDING",
        "priority": order.priority,
        "is_streamed": order.is_streamed,
        "is_cancelling": False,
        "is_erased": False,
        "owner": "",
        "attempt": 0,
        "num_lost": 0,
        "num_failures": 0,
        "not_before": microseconds(order.not_before),
        "retry_at": 0,
        "deadline": microseconds(order.deadline),
        "kept_us": microseconds(order.kept_s),
        "expires_at": 0,
        "created_at": now,
        "progress": [0, 0, 0],
        "body": order.body,
        "webhook": order.webhook,
    }


def state_of(row: Row[Any]) -> TaskState:
    """Return a task; without its output where the row was read without."""
    return TaskState(
        id=row.id,
        tenant=row.tenant,
        key_id=row.key_id,
        path=row.path,
        status=cast("TaskStatus", row.status),
        priority=row.priority,
        is_streamed=row.is_streamed,
        is_cancelling=row.is_cancelling,
        is_erased=row.is_erased,
        attempt=row.attempt,
        created_at=seconds(row.created_at),
        not_before=seconds(row.not_before),
        deadline=seconds(row.deadline),
        expires_at=seconds(row.expires_at),
        started_at=None if row.started_at is None else seconds(row.started_at),
        completed_at=None if row.completed_at is None else seconds(row.completed_at),
        progress=TaskProgress(*row.progress),
        output=getattr(row, "output", None),
        error=row.error,
        usage=row.usage,
        webhook=row.webhook,
    )


def claim_of(row: Row[Any]) -> Claim:
    """Return the right to do the task of a row that has just been claimed."""
    return Claim(
        task_id=row.id,
        attempt=row.attempt + 1,
        tenant=row.tenant,
        key_id=row.key_id,
        path=row.path,
        body=bytes(row.body),
        is_streamed=row.is_streamed,
        num_failures=row.num_failures,
        created_at=seconds(row.created_at),
        deadline=seconds(row.deadline),
        priority=row.priority,
    )


def seconds(found: int) -> float:
    """Return a time of a row as the types have it."""
    return found / 1_000_000
