"""What was read, compared with its checksums before anybody is shown it."""

import json
import logging
from typing import Any

from deployments.errors import DatabaseDamaged
from deployments.stores.checksums import checksum, chunk_checksum, document_checksum

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
        raise _damaged("chunk")


def sound_metadata(document_id: str, title: str, metadata: str, stored: int) -> dict[str, Any]:
    """Return a document's metadata from its JSON; raises DatabaseDamaged as `check_chunk` does."""
    try:
        found: dict[str, Any] = json.loads(metadata)
    except ValueError:
        raise _damaged("document") from None
    check_document(document_id, title, found, stored)
    return found


def check_document(document_id: str, title: str, metadata: dict[str, Any], stored: int) -> None:
    """Raise DatabaseDamaged unless what a search says of a document is as it was written."""
    if document_checksum(document_id, title, metadata) != stored:
        raise _damaged("document")


def check_text(text: str, stored: int) -> None:
    """Raise DatabaseDamaged unless a document's text is as it was written."""
    if checksum(text) != stored:
        raise _damaged("document's text")


def _damaged(what: str) -> DatabaseDamaged:
    log.error("a %s does not have its checksum: the database is damaged", what)
    return DatabaseDamaged("what is stored is damaged: restore it from a backup")
