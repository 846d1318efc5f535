"""The fake's collections: dictionaries of documents by path, moved and erased."""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator

from deployments.errors import CollectionNotFound, Conflict, DocumentNotFound, NotFound, RagError
from deployments.stores.paths import parts_of
from deployments.types import (
    PLACES,
    CollectionChanges,
    CollectionInfo,
    CollectionSettings,
    Document,
    DocumentInfo,
    ErasedPart,
    Erasure,
    ErasureScope,
    Exported,
    Imported,
    IndexStats,
    Place,
    RowError,
    StoredDocument,
)
from tests.unit.ingress.fake_models import DIM
from tests.unit.ingress.fake_work import FakeWork

SETTINGS = CollectionSettings(embedding_model="fake-embedder", dim=DIM)
"""Of collections that are just put into `stored`."""

NOW = "2026-01-02T03:04:05.000000Z"


class FakeCollections(FakeWork):
    """Holds what a test puts into `stored`, and notes what it is asked to change or erase."""

    def __init__(self) -> None:
        super().__init__()
        self.stored: dict[str, dict[str, Document]] = {}  # by path, as all that has a name here
        self.settings: dict[str, CollectionSettings] = {}
        self.changes: list[CollectionChanges] = []
        self.num_holders = 0
        self.sources: list[bytes | str] = []
        self.scopes: list[tuple[ErasureScope, float]] = []
        self.erasures: dict[str, Erasure] = {}
        self.is_erased = True

    async def collections(self, tenant: str, *, timeout_s: float) -> list[CollectionInfo]:
        self._fail()
        own = [path for path in sorted(self.stored) if parts_of(path)[0] == tenant]
        return [self._info(path) for path in own]

    async def create_collection(
        self, name: str, settings: CollectionSettings, *, timeout_s: float
    ) -> CollectionInfo:
        if name in self.stored:
            raise Conflict(f"collection {name} exists")
        self.stored[name] = {}
        self.settings[name] = settings
        return self._info(name)

    async def index_stats(self, name: str, *, timeout_s: float) -> list[IndexStats]:
        self._collection(name)
        held = IndexStats(
            kind="flat", storage="fp32", num_rows=1, num_indexed=0, num_dead=0, num_bytes=32
        )
        return [held] * self.num_holders

    async def update_collection(
        self, name: str, changes: CollectionChanges, *, timeout_s: float
    ) -> CollectionInfo:
        self._collection(name)
        self.changes.append(changes)
        if changes.description is not None:
            old = self.settings.get(name, SETTINGS)
            self.settings[name] = dataclasses.replace(old, description=changes.description)
        return self._info(name)

    async def collection(self, name: str, *, timeout_s: float) -> CollectionInfo:
        self._collection(name)
        return self._info(name)

    async def delete_collection(self, name: str, *, timeout_s: float) -> None:
        self._collection(name)
        del self.stored[name]

    async def documents(
        self, collection: str, *, limit: int, after: str, timeout_s: float
    ) -> list[DocumentInfo]:
        documents = sorted(self._collection(collection).values(), key=lambda one: one.id)
        return [
            DocumentInfo(
                id=one.id,
                title=one.title,
                metadata=one.metadata,
                subject=one.subject,
                num_chunks=1,
                created_at=NOW,
                updated_at=NOW,
            )
            for one in documents
            if one.id > after
        ][:limit]

    async def document(
        self, collection: str, document_id: str, *, timeout_s: float
    ) -> StoredDocument:
        document = self._collection(collection).get(document_id)
        if document is None:
            raise DocumentNotFound("the collection holds no document with this id")
        return StoredDocument(document, 1, NOW, NOW)

    async def delete_document(self, collection: str, document_id: str, *, timeout_s: float) -> None:
        await self.document(collection, document_id, timeout_s=timeout_s)
        del self.stored[collection][document_id]

    async def export_collection(
        self, collection: str, *, timeout_s: float
    ) -> AsyncGenerator[bytes]:
        """Yield the documents' ids, one a piece."""
        self.num_running += 1
        try:
            self._fail()
            for number, key in enumerate(self._collection(collection)):
                if number == self.error_after and number:
                    raise RagError
                yield key.encode()
                await asyncio.sleep(self.delay_s)
            yield b"end"
        finally:
            self.num_running -= 1

    async def export_to(self, collection: str, uri: str, *, timeout_s: float) -> Exported:
        self._fail()
        return Exported(collection, uri, len(self._collection(collection)), 0, 0)

    async def import_collection(
        self, collection: str, source: bytes | str, *, max_document_bytes: int, timeout_s: float
    ) -> Imported:
        """Take a document per line; refuse what is longer than allowed, leave out `erased`."""
        self._fail()
        self.sources.append(source)
        lines = source.splitlines() if isinstance(source, bytes) else []
        bad = [i for i, line in enumerate(lines) if len(line) > max_document_bytes]
        return Imported(
            collection=collection,
            num_rows=len(lines),
            num_created=len(lines) - len(bad) - lines.count(b"erased"),
            num_replaced=0,
            num_unchanged=0,
            num_chunks=0,
            num_failed=len(bad),
            num_suppressed=lines.count(b"erased"),
            errors=tuple(RowError(i, f"row{i}", "too large", "text") for i in bad),
        )

    async def erase(self, scope: ErasureScope, *, wait_s: float, timeout_s: float) -> Erasure:
        self.scopes.append((scope, wait_s))
        if scope.collection is not None:
            self._collection(scope.collection)
        erased = [ErasedPart("docs", "col_1", 2, 5)] if scope.tenant == "default" else []
        places: dict[Place, str | None] = dict.fromkeys(PLACES, NOW if self.is_erased else None)
        self.erasures["era_" + "0" * 32] = erasure = Erasure(
            id="era_" + "0" * 32,
            tenant=scope.tenant,
            kind=scope.kind,
            parts=tuple(erased),
            places=places,
            requested_at=NOW,
            completed_at=NOW if self.is_erased else None,
        )
        return erasure

    async def erasure(self, tenant: str, erasure_id: str, *, timeout_s: float) -> Erasure:
        erasure = self.erasures.get(erasure_id)
        if erasure is None or erasure.tenant != tenant:
            raise NotFound("there is no erasure with this id")
        return erasure

    def _collection(self, name: str) -> dict[str, Document]:
        if name not in self.stored:
            raise CollectionNotFound(f"collection {name!r} does not exist")
        return self.stored[name]

    def _info(self, name: str) -> CollectionInfo:
        settings = self.settings.get(name, SETTINGS)
        return CollectionInfo(
            name=name,
            **{one.name: getattr(settings, one.name) for one in dataclasses.fields(settings)},
            num_documents=len(self.stored[name]),
            num_chunks=len(self.stored[name]),
            sequence=len(self.stored[name]),
            created_at=NOW,
        )
