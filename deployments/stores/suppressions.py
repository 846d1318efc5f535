"""What was erased, as keyed hashes: no backup or export of before must bring it back.

Nobody can tell from them who or what was erased without the installation's pepper.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Table, delete, insert, inspect, select

from deployments.stores import schema
from deployments.stores.ids import utc_now
from deployments.stores.removal import delete_collection, delete_documents, documents_of, pages
from deployments.stores.tasks.erasing import erase_restored_tasks

Name = Sequence[str | None]
"""What was erased: its kind, and where it was."""


class Stored(NamedTuple):
    """What says of a document whether it was erased since it was stored."""

    id: str
    subject: str | None
    updated_at: str


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

    def among(
        self,
        connection: Connection,
        tenant: str,
        collections: Sequence[str],
        documents: Sequence[Stored],
    ) -> set[str]:
        """Return the ids of those documents that were erased after they had been stored.

        Called in the transaction that would store them, which holds the collection: an erasure is
        before it, and seen, or after it, and deletes them.

        Args:
            connection: of the transaction.
            tenant: into whose collection they come.
            collections: the names under which they were stored, or will be.
            documents: as they were stored then.
        """
        table = schema.suppressions
        if connection.execute(select(table.c.digest).limit(1)).first() is None:
            return set()
        whole = [self._digest(("collection", tenant, one)) for one in collections]
        own = [
            [self._digest(name) for name in _names(tenant, collections, document)]
            for document in documents
        ]
        erased_at: dict[bytes, str] = {}
        for page in pages(list({*whole, *chain.from_iterable(own)})):
            rows = connection.execute(select(table).where(table.c.digest.in_(page)))
            erased_at |= {row.digest: row.erased_at for row in rows}
        return {
            document.id
            for document, digests in zip(documents, own, strict=True)
            if max(erased_at.get(one, "") for one in (*whole, *digests)) > document.updated_at
        }

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
            erase_restored_tasks(restored)

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
            if max(when(*one) for one in _names(tenant, [name], row)) > row.updated_at
        ]
        if doomed:
            delete_documents(connection, collection, doomed)
        return len(doomed)

    def _digest(self, name: Name) -> bytes:
        message = json.dumps(list(name)).encode("ascii")
        return hashlib.blake2b(message, key=self._pepper, digest_size=32, person=b"erased").digest()


def _names(tenant: str, collections: Sequence[str], document: Stored | Row[Any]) -> list[Name]:
    """Return the names under which a document of these collections may have been erased."""
    documents: list[Name] = [("document", tenant, name, document.id) for name in collections]
    return [*documents, ("subject", tenant, document.subject)]


def _put(connection: Connection, table: Table, key: str, rows: Sequence[Mapping[Any, Any]]) -> None:
    """Insert rows in place of those with the same key: these are the younger ones."""
    for page in pages(rows):
        connection.execute(delete(table).where(table.c[key].in_([row[key] for row in page])))
        connection.execute(insert(table), [dict(row) for row in page])
