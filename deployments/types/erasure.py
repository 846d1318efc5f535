"""Erasure: what is to be gone, and the receipt that says when it was."""

from dataclasses import dataclass
from typing import Literal

from deployments.types.filters import MetadataFilter

ErasureKind = Literal["documents", "filter", "collection", "subject"]

Place = Literal["database", "indexes", "snapshots", "caches", "tasks"]
"""Where documents are kept; an erasure is complete when each place is clean.

`caches` are what models keep of texts that they have read, to read the like of them faster.
`tasks` are what was asked, answered and said of them by work that outlives its request; they are
rows like the documents. A receipt from before there were tasks does not have the place.
"""

PLACES: tuple[Place, ...] = ("database", "indexes", "snapshots", "caches", "tasks")


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureScope:
    """What is to be erased: exactly one of documents, a filter, a collection and a subject.

    `collection` is a path; it may be missing for a `subject` only, whose documents are then erased
    from every collection of the tenant. Without ids, filter and subject it is the whole collection.
    """

    tenant: str
    collection: str | None = None
    document_ids: tuple[str, ...] | None = None
    filter: MetadataFilter | None = None
    subject: str | None = None

    @property
    def kind(self) -> ErasureKind:
        """Return what kind of scope it is."""
        if self.document_ids is not None:
            return "documents"
        if self.filter is not None:
            return "filter"
        return "collection" if self.subject is None else "subject"


@dataclass(frozen=True, slots=True)
class ErasedPart:
    """What was erased from one collection."""

    collection: str
    collection_id: str
    num_documents: int
    num_chunks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """The receipt of an erasure; it names no document and no person.

    No search that began after `requested_at` finds what it erased. `places` holds the time at
    which each place was found clean, None before that; `completed_at` is the last of them.
    """

    id: str
    tenant: str
    kind: ErasureKind
    parts: tuple[ErasedPart, ...]
    places: dict[Place, str | None]
    requested_at: str
    completed_at: str | None = None
