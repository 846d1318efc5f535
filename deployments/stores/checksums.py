"""Checksums of what is stored: a damaged disk must not answer in place of a document.

SQLite and PostgreSQL (unless its cluster was made with checksums) hand out flipped bytes as they
are. CRC-32 finds every burst of up to 32 bits and misses one in 4·10⁹ of other damages; it costs
1 µs for a chunk of 2 kB. It is no protection against anybody who can write to the database.
"""

import json
import zlib
from typing import Any

_sorted_json = json.JSONEncoder(sort_keys=True).encode
"""As `json.dumps`, which makes an encoder each time."""


def checksum(*parts: str | bytes | int | None) -> int:
    """Return the CRC-32 of values in their order; equal values in other places differ."""
    value = 0
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        value = zlib.crc32(data, zlib.crc32(b"%d:" % len(data), value))
    return value


def document_checksum(document_id: str, title: str, metadata: dict[str, Any]) -> int:
    """Return the checksum of what a search says of a document besides its chunks."""
    return checksum(document_id, title, _sorted_json(metadata))


def chunk_checksum(
    number: int, chunk_id: str, document_id: str, start: int, end: int, text: str, vector: bytes
) -> int:
    """Return the checksum of a chunk."""
    return checksum(number, chunk_id, document_id, start, end, text, vector)
