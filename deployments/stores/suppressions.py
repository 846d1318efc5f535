"""What was erased, as keyed hashes: a backup of before must not bring it back.

Nobody can tell from them who or what was erased without the installation's pepper.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Table, delete, insert, inspect, select

from deployments.stores import schema
from deployments.stores.ids import utc_now
from deployments.stores.removal import delete_collection, delete_documents, documents_of, pages

Name = Sequence[str | None]
"""What was erased: its kind, and where it was."""


class Suppressions:
    """Remembers erasures, and repeats them on what came back."""

    def __init__(self, pepper: bytes) -> None:
        self._pepper = pepper

    def add(self, connection: Connection, names: Sequence[Name]) -> None:
        """Remember that this was erased now; the same may be stored anew afterwards."""
        table, now = schema.suppressions, utc_now()
        for page in pages([self._digest(name) for name in names]):
            connection.execute(delete(table).where(table.c.digest.in_(page)))
            connection.execute(insert(table), [{"digest": one, "erased_at": now} for one in page])

    def reapply(self, connection: Connection) -> int:
        """Delete what was erased after it had been stored; return how many documents.

        Called in the transaction that restores a backup, so nothing else has seen any of it.
        """
        rows = connection.execute(select(schema.suppressions))
        erased_at = {row.digest: row.erased_at for row in rows}
        collections = connection.execute(select(schema.collections)).all() if erased_at else []
        return sum(self._reapply_to(connection, one, erased_at) for one in collections)

    def carry(self, connection: Connection) -> Callable[[Connection], None]:
        """Read what was erased, and return what brings it into a database that is restored."""
        if not inspect(connection).has_table(schema.suppressions.name):
            return lambda _: None
        suppressed = connection.execute(select(schema.suppressions)).mappings().all()
        receipts = connection.execute(select(schema.erasures)).mappings().all()

        def after(restored: Connection) -> None:
            _put(restored, schema.suppressions, "digest", suppressed)
            _put(restored, schema.erasures, "id", receipts)
            self.reapply(restored)

        return after

    def _reapply_to(
        self, connection: Connection, collection: Row[Any], erased_at: dict[bytes, str]
    ) -> int:
        def when(*name: str | None) -> str:
            return erased_at.get(self._digest(name), "")

        tenant, name = collection.tenant, collection.name
        if when("collection", tenant, name) > collection.created_at:
            return delete_collection(connection, collection)
        doomed = [
            row.id
            for row in documents_of(connection, collection.id)
            if max(when("document", tenant, name, row.id), when("subject", tenant, row.subject))
            > row.updated_at
        ]
        if doomed:
            delete_documents(connection, collection, doomed)
        return len(doomed)

    def _digest(self, name: Name) -> bytes:
        message = json.dumps(list(name)).encode("ascii")
        return hashlib.blake2b(message, key=self._pepper, digest_size=32, person=b"erased").digest()


def _put(connection: Connection, table: Table, key: str, rows: Sequence[Mapping[Any, Any]]) -> None:
    """Insert rows in place of those with the same key: these are the younger ones."""
    for page in pages(rows):
        connection.execute(delete(table).where(table.c[key].in_([row[key] for row in page])))
        connection.execute(insert(table), [dict(row) for row in page])
