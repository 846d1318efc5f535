"""Leases: of many processes, one does what only one may do.

A lease runs out by itself, so the work of a killed holder goes on elsewhere. The hosts' clocks have
to agree to within a second or two, and whoever holds a lease must bear that another begins as well.
"""

import time
import uuid

from sqlalchemy import delete, insert, or_, select, update

from deployments.errors import Conflict
from deployments.stores import schema
from deployments.stores.database import Database
from deployments.stores.ids import microseconds


class Lease:
    """One process's claim to a lease."""

    def __init__(self, database: Database, name: str, duration_s: float) -> None:
        self._database = database
        self._name = name
        self._duration_s = duration_s
        self._owner = uuid.uuid4().hex

    def hold(self) -> bool:
        """Take the lease when it is free or ours, for its duration; return whether it is ours.

        Raises:
            StoreUnavailable: the database did not answer; safe to retry.
        """
        table, now = schema.leases, microseconds(time.time())
        ours = {"owner": self._owner, "expires_at": now + microseconds(self._duration_s)}
        statement = (
            update(table)
            .where(
                table.c.name == self._name,
                or_(table.c.owner == self._owner, table.c.expires_at < now),
            )
            .values(ours)
        )
        try:
            with self._database.write() as connection:
                if connection.execute(statement).rowcount:
                    return True
                known = select(table.c.name).where(table.c.name == self._name)
                if connection.execute(known).one_or_none() is not None:
                    return False
                connection.execute(insert(table).values(name=self._name, **ours))
        except Conflict:  # another one inserted it first
            return False
        return True

    def release(self) -> None:
        """Let go of the lease, so that another may hold it at once."""
        table = schema.leases
        with self._database.write() as connection:
            ours = (table.c.name == self._name, table.c.owner == self._owner)
            connection.execute(delete(table).where(*ours))
