"""Collections as a graph sees them, as far as the database alone answers: any replica will do.

It does not know embedding, nor search (``corpus.py``).
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from deployments.types import (
    CollectionChanges,
    CollectionInfo,
    CollectionSettings,
    DocumentInfo,
    Erasure,
    ErasureScope,
    Exported,
    Imported,
    IndexStats,
    StoredDocument,
    VectorSpace,
)
from graphs.erasing import Erasing
from graphs.handles import Deadline, has_peers
from graphs.shards import Shards
from graphs.spaces import Ask, Spaces


class Collections(ABC):
    """Lists, changes, moves and erases. Contract: ``ingress/graph.py``."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._spaces = Spaces()
        self._erasing = Erasing(shards, self._forget)

    @abstractmethod
    async def _forget(self, deadline: Deadline) -> None:
        """Have every replica that reads texts let go of what it keeps of them."""

    async def collections(self, tenant: str, *, timeout_s: float) -> list[CollectionInfo]:
        """Return every collection of a tenant, by name."""
        return await self._retrieve("collections", timeout_s, tenant)

    async def create_collection(
        self, name: str, settings: CollectionSettings, *, timeout_s: float
    ) -> CollectionInfo:
        """Create a collection; raises Conflict when the name is taken."""
        return await self._retrieve("create_collection", timeout_s, name, settings)

    async def index_stats(self, name: str, *, timeout_s: float) -> list[IndexStats]:
        """Return what each replica that has the collection in memory holds of its vectors."""
        held = await self._shards.ask_all("index_stats", name, deadline=Deadline(timeout_s))
        return [one for one in held if one is not None]

    async def update_collection(
        self, name: str, changes: CollectionChanges, *, timeout_s: float
    ) -> CollectionInfo:
        """Change a collection's settings, and return it."""
        return await self._retrieve("update_collection", timeout_s, name, changes)

    async def collection(self, name: str, *, timeout_s: float) -> CollectionInfo:
        """Return one collection."""
        return await self._retrieve("collection", timeout_s, name)

    async def delete_collection(self, name: str, *, timeout_s: float) -> None:
        """Delete a collection with all its documents."""
        await self._retrieve("delete_collection", timeout_s, name)
        self._spaces.forget(name)

    async def documents(
        self, collection: str, *, limit: int, after: str, timeout_s: float
    ) -> list[DocumentInfo]:
        """Return up to `limit` documents by id, those with an id greater than `after`."""
        return await self._retrieve("documents", timeout_s, collection, limit, after)

    async def document(
        self, collection: str, document_id: str, *, timeout_s: float
    ) -> StoredDocument:
        """Return a stored document with its text."""
        return await self._retrieve("document", timeout_s, collection, document_id)

    async def delete_document(self, collection: str, document_id: str, *, timeout_s: float) -> None:
        """Delete a document; the next search of any replica no longer finds it."""
        await self._retrieve("delete_document", timeout_s, collection, document_id)

    async def export_collection(
        self, collection: str, *, timeout_s: float
    ) -> AsyncGenerator[bytes]:
        """Yield a Parquet file with one state of a collection, in pieces of a few MiB."""
        deadline = Deadline(timeout_s)
        stream = self._shards.stream("export_collection", collection, deadline=deadline)
        async with aclosing(stream) as pieces:
            async for piece in pieces:
                yield piece

    async def export_to(self, collection: str, uri: str, *, timeout_s: float) -> Exported:
        """Write a collection to a new Parquet file below a root of the server's."""
        return await self._retrieve("export_to", timeout_s, collection, uri, timeout_s)

    async def import_collection(
        self, collection: str, source: bytes | str, *, max_document_bytes: int, timeout_s: float
    ) -> Imported:
        """Store the rows of a Parquet file, or of that at a URI; refused rows are reported."""
        args = (collection, source, max_document_bytes, timeout_s)
        return await self._retrieve("import_collection", timeout_s, *args)

    async def erase(self, scope: ErasureScope, *, wait_s: float, timeout_s: float) -> Erasure:
        """Erase documents; return the receipt when all is clean, or after `wait_s`."""
        return await self._erasing.erase(scope, Deadline(timeout_s), wait_s)

    async def erasure(self, tenant: str, erasure_id: str, *, timeout_s: float) -> Erasure:
        """Return a receipt as it is now."""
        return await self._erasing.receipt(tenant, erasure_id, Deadline(timeout_s))

    async def maintain(self) -> None:
        """Take up erasures that a lost ingress began, until cancelled."""
        if has_peers():
            await self._erasing.resume()

    async def _retrieve(self, method: str, timeout_s: float, *args: Any) -> Any:
        return await self._shards.ask(method, *args, deadline=Deadline(timeout_s))

    def _asking(self, deadline: Deadline) -> Ask:
        async def ask(collection: str) -> VectorSpace:
            return await self._shards.ask("space", collection, deadline=deadline)

        return ask
