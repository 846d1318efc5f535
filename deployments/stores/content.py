"""What a client may store: checks on names, ids, text and metadata, and the hash of a content."""

import hashlib
import json
import math
import re
from collections.abc import Sequence
from typing import Any

from deployments.errors import InvalidRequest
from deployments.types import Document

MAX_ID_LENGTH = 256
COLLECTION_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""NUL, which PostgreSQL refuses, and lone surrogates, which have no UTF-8."""

BUILT_IN = ("_id", "_title", "_created_at", "_updated_at")
"""Fields that filters find in every document: no metadata may have these names."""

_CANONICAL = json.JSONEncoder(ensure_ascii=True, sort_keys=True, allow_nan=False).encode

Scalar = str | int | float | bool | None


def invalid(message: str, param: str) -> InvalidRequest:
    """Return the error that names the offending parameter."""
    error = InvalidRequest(message)
    error.param = param
    return error


def is_collection_name(name: str) -> bool:
    """Return whether a collection, or a tenant, may have this name."""
    return COLLECTION_NAME.fullmatch(name) is not None


def is_document_id(document_id: str) -> bool:
    """Return whether a document may have this id."""
    return 0 < len(document_id) <= MAX_ID_LENGTH and UNSTORABLE.search(document_id) is None


def check_text(text: str, param: str) -> None:
    """Raise InvalidRequest when a text cannot be stored as it is."""
    if UNSTORABLE.search(text):
        raise invalid("text must not contain NUL or lone surrogates", param)


def check_documents(documents: Sequence[Document]) -> None:
    """Raise InvalidRequest unless every document can be stored, and no id comes twice."""
    for document in documents:
        if not is_document_id(document.id):
            raise invalid(f"a document's id must be 1 to {MAX_ID_LENGTH} characters", "id")
        check_text(document.text, "text")
        check_text(document.title, "title")
        check_metadata(document.metadata)
        if document.subject is not None and not is_document_id(document.subject):
            raise invalid(f"a subject must be 1 to {MAX_ID_LENGTH} characters", "subject")
    if len({document.id for document in documents}) < len(documents):
        raise invalid("a document's id may appear only once per call", "id")


def check_metadata(metadata: dict[str, Any], param: str = "metadata") -> None:
    """Raise InvalidRequest, which names `param`, unless this can be a document's metadata."""
    for key, value in metadata.items():
        if not isinstance(key, str) or UNSTORABLE.search(key):
            raise invalid("metadata keys must be text without NUL or lone surrogates", param)
        if key in BUILT_IN:
            raise invalid(f"metadata must not use the names {', '.join(BUILT_IN)}", param)
        for item in value if isinstance(value, list) else [value]:
            _check_scalar(item, param)


def _check_scalar(value: object, param: str) -> None:
    if not isinstance(value, Scalar):
        raise invalid("metadata must be flat: scalars, or lists of scalars", param)
    if isinstance(value, str):
        check_text(value, param)
    if isinstance(value, float) and not math.isfinite(value):
        raise invalid("metadata numbers must be finite", param)


def content_hash(document: Document) -> bytes:
    """Return 32 bytes that are equal when text, title, metadata, subject and own vectors are."""
    content: list[Any] = [document.title, document.text, document.metadata]
    if document.subject is not None:
        content.append(document.subject)
    digest = hashlib.blake2b(_CANONICAL(content).encode("ascii"), digest_size=32)
    if document.embedded is not None:
        spans = ", ".join(f"[{each.start}, {each.end}]" for each in document.embedded.segments)
        digest.update(f"[{spans}]".encode("ascii"))
        digest.update(document.embedded.vectors.astype("<f4").tobytes())
    return digest.digest()
