"""A Parquet file in parts that are files themselves, so that one of any size fits the API."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import OperatorError
from deployments.errors import RagError
from deployments.stores.exports import EXPORT, SETTINGS, SOURCE, VERSION
from deployments.stores.seals import check_seal, sealed

READ_ROWS = 2000
MAX_PART_BYTES = 8 * 1024 * 1024
"""Before compression; the ingress takes 32 MiB, and small parts show progress."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a file, and how many came before."""

    table: pa.Table
    first_row: int
    metadata: dict[str, str] | None

    @property
    def content(self) -> bytes:
        """Return the part as a file, sealed where the whole is an export."""
        if self.metadata is not None:
            return sealed(self.table.cast(EXPORT), self.metadata)
        file = io.BytesIO()
        pq.write_table(self.table, file, compression="zstd", write_page_checksum=True)
        return file.getvalue()

    def halves(self) -> "list[Part]":
        """Return the part as two; as one that cannot be divided."""
        half = self.table.num_rows // 2
        if not half:
            return [self]
        second = Part(self.table.slice(half), self.first_row + half, self.metadata)
        return [Part(self.table.slice(0, half), self.first_row, self.metadata), second]


class PartedFile:
    """A file on this host, checked where it is one of our exports."""

    def __init__(self, path: Path) -> None:
        """Raises OperatorError when it cannot be read, or is damaged."""
        try:
            self._file = pq.ParquetFile(path, page_checksum_verification=True)
            metadata: dict[bytes, bytes] = self._file.metadata.metadata or {}
            self._metadata = None
            if "chunks" in self._file.schema_arrow.names:
                with path.open("rb") as raw:
                    check_seal(raw)
                kept = [VERSION, SETTINGS, *([SOURCE] if SOURCE.encode() in metadata else [])]
                self._metadata = {name: metadata[name.encode()].decode() for name in kept}
        except (pa.ArrowException, OSError, KeyError) as error:
            raise OperatorError(f"{path} is no Parquet file that can be read") from error
        except RagError as error:
            raise OperatorError(f"{path}: {error.message}") from error

    @property
    def num_rows(self) -> int:
        """Return how many rows the file has."""
        return int(self._file.metadata.num_rows)

    def parts(self) -> Iterator[Part]:
        """Yield the rows in order, about `MAX_PART_BYTES` at a time; one part if there are none."""
        first_row = 0
        for table in self._tables():
            pieces = max(1, -(-table.nbytes // MAX_PART_BYTES))
            step = max(1, table.num_rows // pieces)
            for start in range(0, max(1, table.num_rows), step):
                part = table.slice(start, step)
                yield Part(part, first_row, self._metadata)
                first_row += part.num_rows

    def _tables(self) -> Iterator[pa.Table]:
        is_empty = True
        batches: Any = self._file.iter_batches(READ_ROWS)
        try:
            for batch in batches:
                is_empty = False
                yield pa.Table.from_batches([batch])
        except (pa.ArrowException, OSError) as error:
            raise OperatorError("the file is damaged") from error
        if is_empty:
            yield self._file.schema_arrow.empty_table()
