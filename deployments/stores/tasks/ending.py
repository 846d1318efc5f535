"""How tasks leave whoever does them: they end, or wait for somebody else."""

from typing import Any

from sqlalchemy import Connection, Row, update

from deployments.backoff import Backoff
from deployments.stores import schema
from deployments.stores.ids import microseconds
from deployments.stores.tasks.notices import announce
from deployments.types.tasks import TaskEnd

TASKS = schema.tasks
BRIEF = [column for column in TASKS.c if column.name not in ("body", "output")]
"""The columns of a task without what may be large."""

MAX_LOST = 3
"""Attempts whose worker died; after so many the task itself is taken for the cause."""

RETRY = Backoff(1.0, 60.0)

LOST = {
    "message": "workers died of this task; it is not tried again by itself",
    "type": "server_error",
    "code": "task_quarantined",
    "param": None,
}


def end_task(connection: Connection, row: Row[Any], end: TaskEnd, now: int) -> None:
    """Write down how a task ended, and have its webhook told."""
    values = {
        "status": end.status,
        "owner": "",
        "completed_at": now,
        "expires_at": now + row.kept_us,
        "output": end.output,
        "error": None if end.error is None else dict(end.error),
        "usage": None if end.usage is None else dict(end.usage),
    }
    connection.execute(update(TASKS).where(TASKS.c.id == row.id).values(values))
    announce(connection, row, end.status, now)


def put_back(
    connection: Connection, row: Row[Any], now: int, pause_s: float = 0.0, **values: int
) -> None:
    """Let a task wait for another attempt; one that is cancelled needs none, and ends."""
    if row.is_cancelling:
        end_task(connection, row, TaskEnd(status="CANCELLED"), now)
        return
    retry_at = now + microseconds(min(pause_s, RETRY.max_s)) if pause_s > 0 else 0
    back = {"status": "PENDING", "owner": "", "retry_at": retry_at, **values}
    connection.execute(update(TASKS).where(TASKS.c.id == row.id).values(back))


def lose(connection: Connection, row: Row[Any], now: int) -> None:
    """Put a task back whose worker died; one of which workers die ends."""
    num_lost = row.num_lost + 1
    if num_lost >= MAX_LOST and not row.is_cancelling:
        end_task(connection, row, TaskEnd(status="FAILED", error=LOST), now)
    else:
        put_back(connection, row, now, num_lost=num_lost)
