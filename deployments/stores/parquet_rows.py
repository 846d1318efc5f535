"""The rows of a Parquet file as documents with vectors, each checked for itself.

It takes our own exports, which must be whole to the bit, and the plain table that other tools
write: `id`, `text` and `vector`, perhaps `title`, `metadata` and `subject`.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from deployments.errors import InvalidRequest, RagError, UnreadableDocument
from deployments.stores.content import check_documents, invalid
from deployments.stores.exports import EXPORT, FORMAT, SETTINGS, SOURCE, VERSION
from deployments.stores.incoming import Incoming, Raw, exported, plain
from deployments.stores.seals import check_seal, damaged
from deployments.stores.texts import texts_of
from deployments.types import CollectionSettings, IndexSettings, Metric

READ_ROWS = 1000
MAX_GROUP_VALUES = 2**28
"""Numbers in one column of a row group: 1 GiB of vectors."""

TEXTS = ("id", "text", "title", "metadata", "subject")
NEEDED = {"id", "text", "vector"}
OPTIONAL = {"title", "metadata", "subject"}


@dataclass(frozen=True, slots=True)
class Limits:
    """How large one document may be."""

    max_document_bytes: int = 16 * 1024 * 1024


class ParquetRows:
    """A file, checked as far as it can be before its rows are read."""

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        """Read the footer; of an export, check the seal.

        Raises:
            UnreadableDocument: it is damaged, or no Parquet file.
            InvalidRequest: it has not the columns of an export nor of a plain table.
        """
        self._limits = limits
        try:
            footer = pq.read_metadata(file)
            leaves = {footer.schema.column(i).path for i in range(footer.num_columns)}
            # What repeats in a column is then held once, however often a file says it repeats.
            repeating = [name for name in TEXTS if name in leaves]
            options: dict[str, Any] = {"read_dictionary": repeating, "pre_buffer": False}
            self._file = pq.ParquetFile(file, page_checksum_verification=True, **options)
            self._schema = self._file.schema_arrow
        except (pa.ArrowException, OSError, ValueError) as error:
            raise damaged() from error
        self.is_export = "chunks" in self._schema.names
        self.settings = None
        self.source: str | None = None
        if self.is_export:
            check_seal(file)
            metadata = footer.metadata or {}
            self.settings = _settings(metadata)
            self.source = metadata.get(SOURCE.encode(), b"").decode("utf-8", "replace") or None
        self._check_columns()
        self._check_sizes()

    @property
    def num_rows(self) -> int:
        """Return how many rows the file says it has."""
        return int(self._file.metadata.num_rows)

    def batches(self, dim: int, metric: Metric) -> Iterator[list[Incoming]]:
        """Yield the rows in order.

        Raises:
            UnreadableDocument: a page is damaged.
        """
        row = 0
        batches = self._file.iter_batches(READ_ROWS, use_threads=False)
        while True:
            try:
                batch = next(batches, None)
                if batch is None:
                    return
                raws = self._raws(batch, dim, metric)
            except (pa.ArrowException, OSError) as error:
                raise damaged() from error
            yield [self._checked(row + i, raw) for i, raw in enumerate(raws)]
            row += len(raws)

    def _raws(self, batch: pa.RecordBatch, dim: int, metric: Metric) -> list[Raw]:
        texts = {
            name: texts_of(batch.column(name), self._limits.max_document_bytes)
            for name in self._text_columns
        }
        if self.is_export:
            return exported(batch, texts, dim, metric)
        return plain(batch, texts, dim, metric)

    @cached_property
    def _text_columns(self) -> tuple[str, ...]:
        names = (*TEXTS, "created_at", "updated_at") if self.is_export else TEXTS
        return tuple(
            name
            for name in names
            if name in self._schema.names and not pa.types.is_struct(self._schema.field(name).type)
        )

    def _checked(self, row: int, raw: Raw) -> Incoming:
        try:
            incoming = raw.incoming(row)
            assert incoming.document is not None
            check_documents([incoming.document])
        except RagError as error:
            return Incoming(row, raw.readable_id, None, error=error)
        return incoming

    def _check_columns(self) -> None:
        names = self._schema.names
        if self.is_export:
            if not self._schema.equals(_as_read(EXPORT)):
                raise damaged()
            return
        if len(set(names)) < len(names) or not NEEDED <= {*names} <= NEEDED | OPTIONAL:
            raise InvalidRequest(
                "a table has the columns id, text and vector, and may have title, metadata and "
                "subject"
            )
        for name in TEXTS:
            if name in names and not _is_text(self._schema.field(name).type, name):
                raise invalid(f"the column {name} must hold text", name)

    def _check_sizes(self) -> None:
        """Refuse a row group that would not fit the memory; what it says is what is read."""
        footer = self._file.metadata
        for group in range(footer.num_row_groups):
            columns = [footer.row_group(group).column(i) for i in range(footer.num_columns)]
            if any(column.num_values > MAX_GROUP_VALUES for column in columns):
                raise InvalidRequest("a row group of the file is too large; write smaller ones")


def _settings(metadata: dict[bytes, bytes]) -> CollectionSettings:
    if metadata.get(VERSION.encode()) != FORMAT.encode():
        raise UnreadableDocument("the export has a format that this version does not know")
    try:
        values = json.loads(metadata[SETTINGS.encode()])
        return CollectionSettings(**{**values, "index": IndexSettings(**values["index"])})
    except (KeyError, TypeError, ValueError) as error:
        raise damaged() from error


def _as_read(schema: pa.Schema) -> pa.Schema:
    """Return a schema as it comes back: texts as dictionaries, lists with Parquet's names."""
    fields = []
    for field in schema:
        kind = pa.dictionary(pa.int32(), pa.string()) if field.name in TEXTS else field.type
        fields.append(pa.field(field.name, kind))
    return pa.schema(fields)


def _is_text(kind: pa.DataType, name: str) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if name == "metadata" and pa.types.is_struct(kind):
        return True
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
