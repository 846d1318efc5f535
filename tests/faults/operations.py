"""Every kind of operation that writes: one line adds another.

An operation is a row of steps. Each is one transaction: it happens wholly or not at all, and what
it did stays when it has returned.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alembic import command

from deployments.config import Settings
from deployments.stores import migrations
from deployments.stores.collections import CollectionStore
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.first_key import first_admin_key
from deployments.stores.keys import KeyStore, open_keys
from deployments.stores.migrations import migrate
from deployments.stores.sql_errors import translated
from deployments.types import Document
from tests.unit.stores.material import doc, put, settings

SIZE = 24
MANY = 80


class Stores:
    """A database's stores, each made when it is asked for; opening counts as part of a step."""

    def __init__(self, url: str, state: Path) -> None:
        self.url, self.state = url, state
        self._database: Database | None = None

    @property
    def database(self) -> Database:
        self._database = self._database or Database(self.url)
        return self._database

    @property
    def keys(self) -> KeyStore:
        return KeyStore(self.database, self.state)

    def close(self) -> None:
        if self._database is not None:
            self._database.close()

    def put(self, *documents: Document, collection: str = "c") -> None:
        put(self.database, documents, collection, SIZE)

    def delete(self, document_id: str) -> None:
        DocumentStore(self.database).delete("c", document_id)

    def create(self, name: str) -> None:
        CollectionStore(self.database).create(name, settings("about " + name))

    def drop(self, name: str) -> None:
        CollectionStore(self.database).delete(name)

    def execute(self, statement: str) -> None:
        """Run a statement of SQLite outside any transaction."""
        with translated(), self.database._driver_connection() as connection:
            connection.execute(statement).fetchall()


Step = Callable[[Stores], object]


@dataclass(frozen=True)
class Operation:
    """Steps, and what is stored before them: `filled`, `first` (revision 0001) or `nothing`."""

    steps: tuple[Step, ...]
    base: str = "filled"


def text_of(name: str, version: int = 0, length: int = 8) -> str:
    return " ".join(f"{name} version{version} word{i}" for i in range(length))


def named(name: str, version: int = 0, length: int = 8, **metadata: object) -> Document:
    return doc(name, text_of(name, version, length), f"title of {name}", **metadata)


def fill(stores: Stores) -> None:
    """Store what most operations start from."""
    migrate(stores.url)
    for name in ("admin", "reader"):
        stores.keys.create(name, is_admin=name == "admin")
    stores.put(*(named(f"old{i}", year=2000 + i) for i in range(12)))
    stores.put(*(named(f"other{i}") for i in range(3)), collection="other")
    stores.put(named("old0", 1), named("gone", 1, 20))
    stores.delete("gone")
    stores.close()  # folds the log into the file


def prepare(base: str, url: str, state: Path) -> None:
    """Make what an operation starts from; ``Operation`` lists the kinds."""
    state.mkdir(parents=True)
    if base == "nothing":
        return
    fill(Stores(url, state))
    if base == "first":
        database = Database(url)
        with database.migration() as connection:
            command.downgrade(migrations.alembic_config(connection), "0001")
        database.close()


def many(version: int) -> list[Document]:
    return [named(f"many{i}", version, 20, group=i % 7) for i in range(MANY)]


OPERATIONS: dict[str, Operation] = {
    "create a collection": Operation((lambda s: s.create("new"),)),
    "store a new document": Operation((lambda s: s.put(named("new")),)),
    "store into a new collection": Operation((lambda s: s.put(named("a"), collection="new"),)),
    "replace a document": Operation((lambda s: s.put(named("old1", 2)),)),
    "replace by a longer and a shorter one": Operation(
        (lambda s: s.put(named("old1", 2, 300), named("old2", 2, 1)),)
    ),
    "store many documents": Operation((lambda s: s.put(*many(1)),)),
    "replace many documents": Operation((lambda s: s.put(*many(1)), lambda s: s.put(*many(2)))),
    "change metadata only": Operation((lambda s: s.put(named("old3", year=1999, seen=True)),)),
    "delete a document": Operation((lambda s: s.delete("old4"),)),
    "delete one after another": Operation(
        tuple(lambda s, i=i: s.delete(f"old{i}") for i in (5, 6, 7))
    ),
    "delete a collection": Operation((lambda s: s.drop("c"),)),
    "delete, then store again": Operation(
        (lambda s: s.delete("old8"), lambda s: s.put(named("old8", 3)))
    ),
    "create a key": Operation((lambda s: s.keys.create("new"),)),
    "revoke a key": Operation((lambda s: s.keys.revoke(_key_named(s, "reader")),)),
    "write the first key": Operation(
        (lambda s: migrate(s.url), lambda s: first_admin_key(s.state, s.database)), "nothing"
    ),
    "open a new host's keys": Operation(
        (lambda s: open_keys(Settings(state_dir=s.state, database_url=s.url)),), "nothing"
    ),
    "migrate from nothing": Operation((lambda s: migrate(s.url),), "nothing"),
    "migrate from the first revision": Operation((lambda s: migrate(s.url),), "first"),
    "fold the log into the file": Operation(
        (
            lambda s: s.put(*many(1)[:30]),
            lambda s: s.execute("PRAGMA wal_checkpoint(TRUNCATE)"),
        )
    ),
    "vacuum": Operation((lambda s: s.delete("old9"), lambda s: s.execute("VACUUM"))),
    "recover": Operation((lambda s: s.database.check(), lambda s: s.close())),
    "close": Operation((lambda s: s.put(*many(1)[:30]), lambda s: s.close())),
}


def _key_named(stores: Stores, name: str) -> str:
    (key,) = (key.id for key in stores.keys.list() if key.name == name)
    return key
