"""Erasing what batches said from collections: the lines go, and with them what files show."""

from collections.abc import Sequence
from itertools import product

from sqlalchemy import Connection, select, update

from deployments.stores import schema
from deployments.stores.batches.rows import BATCHES, FILES
from deployments.stores.batches.settling import size_of
from deployments.stores.removal import pages

LINES = schema.batch_lines


def erase_lines(connection: Connection, tenant: str, collections: Sequence[str]) -> int:
    """Remove what a tenant's batches answered from collections; return how many answers.

    An answer that was begun before this is not taken, its line is done again. The custom ids and
    the counts stay.

    Args:
        connection: of the transaction that erases the documents.
        tenant: whose batches.
        collections: their paths.
    """
    mine = select(BATCHES.c.id).where(BATCHES.c.tenant == tenant)
    num_erased = 0
    for page in pages(list(dict.fromkeys(collections))):
        theirs = (LINES.c.collection.in_(page), LINES.c.batch_id.in_(mine))
        done = (*theirs, LINES.c.num_bytes > 0)
        batches = connection.scalars(select(LINES.c.batch_id).where(*theirs).distinct()).all()
        held = select(BATCHES.c.id).where(BATCHES.c.id.in_(batches)).order_by(BATCHES.c.id)
        connection.execute(held.with_for_update())
        emptied = {"data": b"", "num_bytes": 0}
        num_erased += connection.execute(update(LINES).where(*done).values(emptied)).rowcount
        connection.execute(update(LINES).where(*theirs).values(epoch=LINES.c.epoch + 1))
        for batch_id, view in product(batches, ("output", "errors")):
            size = size_of(connection, batch_id, view)
            shown = (FILES.c.batch_id == batch_id, FILES.c.view == view)
            connection.execute(update(FILES).where(*shown).values(num_bytes=size))
    return num_erased
