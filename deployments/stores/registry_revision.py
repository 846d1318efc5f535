"""The number of changes that the registry of models has seen: one row, raised by each of them."""

from sqlalchemy import Connection, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError

from deployments.stores import schema

ONLY = {"id": 1}
"""The one row of `registry_changes`."""

REVISION = select(schema.registry_changes.c.revision).where(
    schema.registry_changes.c.id == bindparam("id")
)


class RegistryChanged(Exception):
    """The registry is not what it was any more; what was read of it has to be read anew."""


def raise_revision(connection: Connection, *, seen: int | None = None) -> None:
    """Raise the revision; from here on other changes wait for this one.

    Raises:
        RegistryChanged: it was not `seen`.
    """
    _raise(connection)
    if seen is not None and connection.scalar(REVISION, ONLY) != seen + 1:
        raise RegistryChanged


def _raise(connection: Connection) -> None:
    table = schema.registry_changes
    statement = update(table).where(table.c.id == ONLY["id"]).values(revision=table.c.revision + 1)
    if connection.execute(statement).rowcount:
        return
    try:
        with connection.begin_nested():
            connection.execute(insert(table).values(**ONLY, revision=1))
    except IntegrityError:  # another process made the first change ever at the same time
        connection.execute(statement)
