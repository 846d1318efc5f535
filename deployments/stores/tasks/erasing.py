"""Erasure of tasks: what they were asked, found and said goes with the documents it is about.

In the transaction that erases documents. A task that has ended loses its content. One that would
bring erased documents back ends. Any other one that has begun begins anew, so that what comes of it
knows nothing of what is erased; its old attempt is not heard any more.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, func, insert, select, update

from deployments.stores import schema
from deployments.stores.database import hold_table
from deployments.stores.ids import microseconds, utc_now
from deployments.stores.paths import path_of
from deployments.stores.tasks.ending import end_task, put_back
from deployments.types.erasure import ErasureScope
from deployments.types.tasks import ENDED, UNENDED, TaskEnd

TASKS = schema.tasks
EVENTS = schema.task_events

INDEX = "/v1/data/index"
"""The route that writes documents."""

ERASED = b'{"type":"erased"}'
"""Stands for all that a task had said; what it says next is numbered on from there."""


def erase_tasks(connection: Connection, scope: ErasureScope, collections: Sequence[str]) -> None:
    """Erase what tasks hold of what a scope reaches.

    Called last in its transaction, for no task is begun or ended from here to the commit: whatever
    one read before is found.

    Args:
        connection: of the transaction that erases the documents.
        scope: what is erased.
        collections: the paths of the collections that it may reach.
    """
    hold_table(connection, TASKS)
    concerned = _concerned(scope, collections)
    now = microseconds(datetime.fromisoformat(utc_now()).timestamp())
    statement = select(TASKS).where(concerned, TASKS.c.status.in_(UNENDED)).order_by(TASKS.c.id)
    for row in connection.execute(statement).all():
        if row.path == INDEX and _brings_back(row.body, scope):
            end_task(connection, row, TaskEnd(status="CANCELLED"), now)
        else:
            _begin_anew(connection, row, now)
    _empty_ended(connection, concerned)


def erase_restored_tasks(connection: Connection) -> None:
    """Erase again what a restored backup has brought back, as the receipts say."""
    receipts = connection.execute(select(schema.erasures)).all()
    for receipt in receipts:
        paths = [path_of(receipt.tenant, part[0]) for part in receipt.parts]
        scope = ErasureScope(tenant=receipt.tenant, collection=_only(receipt, paths))
        at = microseconds(datetime.fromisoformat(receipt.requested_at).timestamp())
        concerned = and_(_concerned(scope, paths), TASKS.c.created_at <= at)
        waiting = (concerned, TASKS.c.status.in_(UNENDED))
        for row in connection.execute(select(TASKS).where(*waiting)).all():
            if row.path == INDEX:  # which documents it was, nobody knows any more
                end_task(connection, row, TaskEnd(status="CANCELLED"), at)
            else:
                _begin_anew(connection, row, at)
        _empty_ended(connection, concerned)


def _only(receipt: Row[Any], paths: Sequence[str]) -> str | None:
    """Return the collection of a receipt; None: a person's documents in any."""
    return None if receipt.kind == "subject" or not paths else paths[0]


def _concerned(scope: ErasureScope, collections: Sequence[str]) -> ColumnElement[bool]:
    """Return what is true of tasks that read or write what a scope reaches.

    Without a collection that is every one: what was read may be of one that is gone by now.
    """
    mine = TASKS.c.tenant == scope.tenant
    if scope.collection is None:
        return and_(mine, TASKS.c.collection != "")
    return and_(mine, TASKS.c.collection.in_(collections))


def _begin_anew(connection: Connection, row: Row[Any], now: int) -> None:
    """Have a task forget what it did; a running attempt does not count any more."""
    last = connection.scalar(select(func.max(EVENTS.c.number)).where(EVENTS.c.task_id == row.id))
    if last is not None:
        connection.execute(delete(EVENTS).where(EVENTS.c.task_id == row.id))
        event = {"task_id": row.id, "number": last, "data": ERASED}
        connection.execute(insert(EVENTS).values(event))
    values = {"progress": [0, 0, 0], "output": None}
    connection.execute(update(TASKS).where(TASKS.c.id == row.id).values(values))
    if row.status == "RUNNING":
        put_back(connection, row, now)


def _empty_ended(connection: Connection, concerned: ColumnElement[bool]) -> None:
    ended = and_(concerned, TASKS.c.status.in_(ENDED))
    ids = select(TASKS.c.id).where(ended)
    connection.execute(delete(EVENTS).where(EVENTS.c.task_id.in_(ids)))
    connection.execute(update(TASKS).where(ended).values(body=b"", output=None, is_erased=True))


def _brings_back(body: bytes, scope: ErasureScope) -> bool:
    """Return whether indexing would store what is erased, or may do so."""
    if scope.document_ids is not None:
        return _names(body, "id", frozenset(scope.document_ids))
    if scope.subject is not None:
        return _names(body, "subject", frozenset({scope.subject}))
    return True


def _names(body: bytes, field: str, wanted: Collection[str]) -> bool:
    try:
        return any(value in wanted for value in _values(json.loads(body), field))
    except ValueError:
        return True  # nobody knows what is in there


def _values(value: Any, field: str) -> Iterator[str]:
    """Yield the texts that a field has anywhere in a JSON value."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            found = one.get(field)
            if isinstance(found, str):
                yield found
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
