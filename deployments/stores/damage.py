"""What was read, compared with its checksums before anybody is shown it."""

import json
import logging
from collections.abc import Mapping
from typing import Any

from deployments.errors import DatabaseDamaged
from deployments.stores.checksums import (
    COLLECTION,
    DOCUMENT,
    KEY,
    checksum,
    chunk_checksum,
    row_checksum,
)

log = logging.getLogger(__name__)


def check_chunk(
    number: int,
    chunk_id: str,
    document_id: str,
    start: int,
    end: int,
    text: str,
    vector: bytes,
    stored: int,
) -> None:
    """Raise DatabaseDamaged unless a chunk is as it was written; `stored` is its checksum."""
    if chunk_checksum(number, chunk_id, document_id, start, end, text, vector) != stored:
        raise damaged("chunk")


def sound_metadata(row: Mapping[Any, Any], stored: int) -> dict[str, Any]:
    """Return a document's metadata, of whose row it is the JSON text; raises as `check_chunk`."""
    metadata = parsed(row["metadata"], "document")
    check_document({**row, "metadata": metadata}, stored)
    return metadata


def parsed(text: str, what: str) -> dict[str, Any]:
    """Return an object from its JSON; raises DatabaseDamaged where it is none."""
    try:
        found = json.loads(text)
    except (TypeError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise damaged(what)
    return found


def check_document(row: Mapping[Any, Any], stored: int) -> None:
    """Raise DatabaseDamaged unless all of a document but its text is as it was written."""
    if row_checksum(DOCUMENT, row) != stored:
        raise damaged("document")


def check_collection(row: Mapping[Any, Any]) -> None:
    """Raise DatabaseDamaged unless a collection's row is as it was written."""
    if row_checksum(COLLECTION, row) != row["checksum"]:
        raise damaged("collection")


def check_key(row: Mapping[Any, Any]) -> None:
    """Raise DatabaseDamaged unless a key's row is as it was written."""
    if row_checksum(KEY, row) != row["checksum"]:
        raise damaged("key")


def check_text(text: str, content_hash: bytes, stored: int) -> None:
    """Raise DatabaseDamaged unless a document's text and its hash are as they were written."""
    if checksum(text, bytes(content_hash)) != stored:
        raise damaged("document's text")


def damaged(what: str) -> DatabaseDamaged:
    """Return the error, and log what is damaged."""
    log.error("a %s is not what was written: the database is damaged", what)
    return DatabaseDamaged("what is stored is damaged: restore it from a backup")
