"""Checksums of what is stored: a damaged disk must not answer in place of a document.

SQLite and PostgreSQL (unless its cluster was made with checksums) hand out flipped bytes as they
are. CRC-32 finds every burst of up to 32 bits and misses one in 4·10⁹ of other damages; it costs
1 µs for a chunk of 2 kB. It is no protection against anybody who can write to the database.
"""

import json
import zlib
from collections.abc import Mapping
from typing import Any

sorted_json = json.JSONEncoder(sort_keys=True).encode
"""As `json.dumps`, which makes an encoder each time."""

COLLECTION = (
    *("id", "tenant", "name", "description", "embedding_model", "dim", "metric", "epoch"),
    *("sequence", "next_chunk_number", "log_start", "created_at"),
    *("num_documents", "num_chunks", "index_settings", "default_metadata"),
)
"""The columns of a collection's row that its checksum covers: all others."""

KEY = (
    *("id", "name", "secret_hash", "is_admin", "created_at", "revoked_at", "tenant"),
    *("grants", "expires_at"),
)
"""The columns of a key's row that its checksum covers: all others."""

DOCUMENT = ("id", "title", "metadata", "subject", "num_chunks", "created_at", "updated_at")
"""The columns of a document's row that its checksum covers: what is said of it besides its text."""


def checksum(*parts: str | bytes | int | None) -> int:
    """Return the CRC-32 of values in their order; equal values in other places differ."""
    value = 0
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        value = zlib.crc32(data, zlib.crc32(b"%d:" % len(data), value))
    return value


def row_checksum(columns: tuple[str, ...], row: Mapping[Any, Any]) -> int:
    """Return the checksum of some columns of a row, JSON as objects."""
    return checksum(*(_part(row[name]) for name in columns))


def _part(value: Any) -> str | bytes | int | None:
    if isinstance(value, dict):
        return sorted_json(value)
    return int(value) if isinstance(value, bool) else value


def chunk_checksum(
    number: int, chunk_id: str, document_id: str, start: int, end: int, text: str, vector: bytes
) -> int:
    """Return the checksum of a chunk."""
    return checksum(number, chunk_id, document_id, start, end, text, vector)
