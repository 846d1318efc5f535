"""The process that the crash tests kill; it imports only what a write needs, so it starts fast."""

import multiprocessing.connection

from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from tests.unit.stores.material import doc, put

BATCH = [f"doc{i}" for i in range(4)]
SIZE = 30


def text_of(document_id: str, version: int) -> str:
    return f"{document_id} in version {version:06d} " * 12


def write(url: str, first: int, acknowledged: multiprocessing.connection.Connection) -> None:
    """Upsert the whole batch with ever newer texts; every third time delete one document too."""
    database = Database(url)
    for version in range(first, first + 100_000):
        put(database, [doc(key, text_of(key, version)) for key in BATCH], size=SIZE)
        acknowledged.send(("upsert", version))
        if version % 3 == 0:
            DocumentStore(database).delete("c", BATCH[0])
            acknowledged.send(("delete", version))
