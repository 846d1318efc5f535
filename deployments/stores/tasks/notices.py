"""Who is to be told that a task has ended: written down in the transaction that ends it."""

from typing import Any

from sqlalchemy import Connection, Row, insert

from deployments.stores import schema
from deployments.stores.ids import new_id
from deployments.types.tasks import TaskStatus


def announce(connection: Connection, row: Row[Any], status: TaskStatus, now: int) -> None:
    """Have a task's webhook told of its end, where it has one."""
    if not row.webhook:
        return
    delivery = {
        "id": new_id("whd"),
        "tenant": row.tenant,
        "subject": row.id,
        "event": f"task.{status.lower()}",
        "url": row.webhook,
        "status": "PENDING",
        "num_attempts": 0,
        "next_at": now,
        "error": "",
        "created_at": now,
    }
    connection.execute(insert(schema.webhook_deliveries).values(delivery))
