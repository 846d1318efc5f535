"""Erasure of batches: what lines answered from collections goes, and with it what files show.

In the transaction that erases documents. The custom ids and the counts stay.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import product

from sqlalchemy import ColumnElement, Connection, and_, select, update

from deployments.stores import schema
from deployments.stores.batches.rows import BATCHES, FILES
from deployments.stores.batches.settling import size_of
from deployments.stores.database import hold_table
from deployments.stores.ids import microseconds
from deployments.stores.paths import path_of
from deployments.types.erasure import ErasureScope

LINES = schema.batch_lines


def erase_lines(connection: Connection, scope: ErasureScope, collections: Sequence[str]) -> int:
    """Remove what a tenant's batches answered from what a scope reaches; return how many answers.

    An answer that was begun before the commit is not taken any more: its line is done again.

    Args:
        connection: of the transaction that erases the documents.
        scope: what is erased.
        collections: the paths of the collections that it may reach.
    """
    hold_table(connection, FILES)
    hold_table(connection, LINES)
    return _erase(connection, _concerned(scope.tenant, scope.collection, collections))


def erase_restored_lines(connection: Connection) -> None:
    """Erase again what a restored backup has brought back, as the receipts say."""
    for receipt in connection.execute(select(schema.erasures)).all():
        paths = [path_of(receipt.tenant, part[0]) for part in receipt.parts]
        only = None if receipt.kind == "subject" or not paths else paths[0]
        at = microseconds(datetime.fromisoformat(receipt.requested_at).timestamp())
        before = select(BATCHES.c.id).where(BATCHES.c.created_at <= at)
        concerned = _concerned(receipt.tenant, only, paths)
        _erase(connection, and_(concerned, LINES.c.batch_id.in_(before)))


def _concerned(
    tenant: str, collection: str | None, collections: Sequence[str]
) -> ColumnElement[bool]:
    """Return what is true of lines that may say what is erased.

    Without a collection that is every one that asked any: it may be of one that is gone by now.
    """
    mine = LINES.c.batch_id.in_(select(BATCHES.c.id).where(BATCHES.c.tenant == tenant))
    if collection is None:
        return and_(mine, LINES.c.collection != "")
    return and_(mine, LINES.c.collection.in_(collections))


def _erase(connection: Connection, concerned: ColumnElement[bool]) -> int:
    batches = connection.scalars(select(LINES.c.batch_id).where(concerned).distinct()).all()
    done = update(LINES).where(concerned, LINES.c.num_bytes > 0)
    num_erased = connection.execute(done.values(data=b"", num_bytes=0)).rowcount
    connection.execute(update(LINES).where(concerned).values(epoch=LINES.c.epoch + 1))
    for batch_id, view in product(batches, ("output", "errors")):
        size = size_of(connection, batch_id, view)
        shown = (FILES.c.batch_id == batch_id, FILES.c.view == view)
        connection.execute(update(FILES).where(*shown).values(num_bytes=size))
    return num_erased
