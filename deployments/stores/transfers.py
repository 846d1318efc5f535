"""Whole collections in and out of a database, as bytes or by the URI of a file."""

import io
from collections.abc import Generator

from deployments.errors import DeadlineExceeded
from deployments.stores.database import Database
from deployments.stores.exports import Export
from deployments.stores.imports import Import, Stop
from deployments.stores.locations import Locations
from deployments.stores.parquet_rows import Limits
from deployments.stores.paths import check_path
from deployments.stores.suppressions import Suppressions
from deployments.types import Exported, Imported


class Transfers:
    """Exports and imports over one database and some roots."""

    def __init__(
        self, database: Database, locations: Locations, suppressions: Suppressions
    ) -> None:
        self._database = database
        self._suppressions = suppressions
        self._locations = locations

    def pieces(self, collection: str) -> Generator[bytes]:
        """Yield an export; closing the iterator ends its transaction. See `Export.pieces`."""
        return Export(self._database, collection).pieces()

    def export_to(self, collection: str, uri: str, should_stop: Stop) -> Exported:
        """Write an export to a new file; whatever stops it, no part of a file is left.

        Raises:
            CollectionNotFound: no collection has this path.
            Forbidden: the file would lie below no root of this tenant.
            Conflict: there is such a file.
            DeadlineExceeded: it was stopped.
        """
        export = Export(self._database, collection)
        num_bytes = 0
        with self._locations.writing(uri, tenant_of(collection)) as draft:
            for piece in export.pieces():
                if should_stop():
                    raise DeadlineExceeded("the export was stopped before its end")
                draft.write(piece)
                num_bytes += len(piece)
        return Exported(collection, uri, export.num_documents, export.num_chunks, num_bytes)

    def import_from(
        self, collection: str, source: bytes | str, limits: Limits, should_stop: Stop
    ) -> Imported:
        """Store the rows of a Parquet file; see `Import.run`.

        Args:
            collection: the collection's path.
            source: the file itself, or its URI.
            limits: on one document.
            should_stop: asked between transactions.

        Raises:
            Forbidden: the URI lies below no root of this tenant.
            NotFound: it names no file.
        """
        work = Import(self._database, self._suppressions, collection, limits)
        if isinstance(source, bytes):
            return work.run(io.BytesIO(source), should_stop)
        with self._locations.reading(source, tenant_of(collection)) as file:
            return work.run(file, should_stop)


def tenant_of(collection: str) -> str:
    """Return whose collection a path names."""
    return check_path(collection)[0]
