"""Feedback as rows: one per key and request, the last word counts."""

from typing import Any, cast

from sqlalchemy import Connection, Row, delete, insert, select

from deployments.stores import schema
from deployments.stores.database import Database
from deployments.stores.ids import microseconds
from deployments.types.feedback import Feedback, Scale

FEEDBACK = schema.feedback


class FeedbackStore:
    """Feedback of all tenants; safe to use from many threads and processes.

    Every method raises StoreUnavailable when the database does not answer.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, given: Feedback) -> None:
        """Keep feedback, in the place of what the same key said of the same request before."""
        same = (
            FEEDBACK.c.tenant == given.tenant,
            FEEDBACK.c.key_id == given.key_id,
            FEEDBACK.c.request_id == given.request_id,
        )
        with self._database.write() as connection:
            connection.execute(delete(FEEDBACK).where(*same))
            connection.execute(insert(FEEDBACK).values(_values(given)))

    def find(self, tenant: str, *, limit: int, before: str, request_id: str) -> list[Feedback]:
        """Return a tenant's feedback, the newest first; of those, what is older than `before`.

        Args:
            tenant: whose.
            limit: so many at most.
            before: an id; empty: begin with the newest.
            request_id: of the request that it is about; empty: of all.
        """
        statement = select(FEEDBACK).where(FEEDBACK.c.tenant == tenant)
        if before:
            statement = statement.where(FEEDBACK.c.id < before)
        if request_id:
            statement = statement.where(FEEDBACK.c.request_id == request_id)
        with self._database.read() as connection:
            found = connection.execute(statement.order_by(FEEDBACK.c.id.desc()).limit(limit))
            return [_feedback(row) for row in found]


def erase_feedback(connection: Connection, tenant: str, subject: str) -> int:
    """Remove what a person said; return how many rows."""
    theirs = (FEEDBACK.c.tenant == tenant, FEEDBACK.c.subject == subject)
    return connection.execute(delete(FEEDBACK).where(*theirs)).rowcount


def _values(given: Feedback) -> dict[str, Any]:
    values = {column.name: getattr(given, column.name) for column in FEEDBACK.c}
    return {**values, "created_at": microseconds(given.created_at)}


def _feedback(row: Row[Any]) -> Feedback:
    values = {**row._mapping, "scale": cast("Scale", row.scale)}
    return Feedback(**{**values, "created_at": row.created_at / 1_000_000})
