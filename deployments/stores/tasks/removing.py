"""Tasks that are removed: with what they said, and with who was told of them."""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, select

from deployments.stores import schema

TASKS = schema.tasks
EVENTS = schema.task_events
DELIVERIES = schema.webhook_deliveries
PAGE = 500


def remove_late(connection: Connection, now: int) -> int:
    """Remove tasks whose results were kept long enough; return how many, up to a page.

    Whoever is still to be told of an end is told: a delivery names the task, no more.
    """
    late = (
        select(TASKS.c.id)
        .where(TASKS.c.expires_at > 0, TASKS.c.expires_at <= now)
        .limit(PAGE)
        .with_for_update(skip_locked=True)  # one that is begun anew just now is not late
    )
    ids = connection.scalars(late).all()
    if ids:
        told = (DELIVERIES.c.subject.in_(ids), DELIVERIES.c.status != "PENDING")
        connection.execute(delete(DELIVERIES).where(*told))
        _remove(connection, ids)
    return len(ids)


def remove_task(connection: Connection, id_: str) -> None:
    """Remove a task, and nobody is told of it any more."""
    connection.execute(delete(DELIVERIES).where(DELIVERIES.c.subject == id_))
    _remove(connection, [id_])


def _remove(connection: Connection, ids: Sequence[str]) -> None:
    connection.execute(delete(EVENTS).where(EVENTS.c.task_id.in_(ids)))
    connection.execute(delete(TASKS).where(TASKS.c.id.in_(ids)))
