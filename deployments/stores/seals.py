"""Parquet files of ours: written in pieces, and sealed so that no bit can change unnoticed.

Parquet's checksums cover its pages, not its footer. So the footer holds a seal: the SHA-256 of the
whole file with zeros in the seal's place. It finds damage, not forgery: anyone can seal a file.
"""

import hashlib
import re
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from deployments.errors import UnreadableDocument

SEAL = "ragserve.seal"
UNSEALED = b"0" * 64
MAX_FOOTER_BYTES = 64 * 1024 * 1024
_SEAL = re.compile(re.escape(SEAL.encode()) + rb"\x18@([0-9a-f]{64})")
"""The key, then Thrift's compact header of a binary field of 64 bytes, then the value."""

_BLOCK = 1024 * 1024


class SealedWriter:
    """Writes tables as row groups, and returns the file piece by piece."""

    def __init__(self, schema: pa.Schema) -> None:
        self._pieces = _Pieces()
        self._digest = hashlib.sha256()
        self._writer = pq.ParquetWriter(
            self._pieces,
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=False,
            write_statistics=False,
            write_page_checksum=True,
            store_schema=False,
        )

    def write(self, table: pa.Table) -> bytes:
        """Append a row group; return what it adds to the file."""
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        return self._taken()

    def finish(self, metadata: dict[str, str]) -> bytes:
        """Return the rest of the file, which holds `metadata` and the seal."""
        self._writer.add_key_value_metadata({**metadata, SEAL: UNSEALED.decode("ascii")})
        self._writer.close()
        rest = self._pieces.take()
        self._digest.update(rest)
        match = _SEAL.search(rest)
        assert match is not None
        start, end = match.span(1)
        return rest[:start] + self._digest.hexdigest().encode("ascii") + rest[end:]

    def _taken(self) -> bytes:
        piece = self._pieces.take()
        self._digest.update(piece)
        return piece


def sealed(table: pa.Table, metadata: dict[str, str]) -> bytes:
    """Return a whole file of one row group."""
    writer = SealedWriter(table.schema)
    return writer.write(table) + writer.finish(metadata)


class _Pieces:
    """A file that hands out what was written to it."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, part: bytes) -> int:
        self._parts.append(bytes(part))
        self._size += len(part)
        return len(part)

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts = []
        return taken

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


def check_seal(file: BinaryIO) -> None:
    """Raise UnreadableDocument unless a file is, to the bit, what a `SealedWriter` wrote."""
    size = file.seek(0, 2)
    footer_at = _footer_start(file, size)
    file.seek(footer_at)
    footer = file.read(size - footer_at)
    matches = list(_SEAL.finditer(footer))
    if len(matches) != 1:
        raise damaged()
    start, end = matches[0].span(1)
    digest = hashlib.sha256()
    file.seek(0)
    left = footer_at
    while left:
        block = file.read(min(_BLOCK, left))
        if not block:
            raise damaged()
        digest.update(block)
        left -= len(block)
    digest.update(footer[:start] + UNSEALED + footer[end:])
    if digest.hexdigest().encode("ascii") != matches[0][1]:
        raise damaged()
    file.seek(0)


def _footer_start(file: BinaryIO, size: int) -> int:
    if size < 12:
        raise damaged()
    file.seek(size - 8)
    tail = file.read(8)
    start = size - 8 - int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or start < 4 or size - start > MAX_FOOTER_BYTES:
        raise damaged()
    return start


def damaged() -> UnreadableDocument:
    """Return the error for a file that is not what it was when it was written."""
    return UnreadableDocument("the Parquet file is damaged, or no Parquet file")
