"""The receipt of an erasure."""

from typing import Literal

from pydantic import BaseModel

from deployments.types import Erasure, ErasureKind, Place


class CleanPlace(BaseModel):
    """A place that documents are kept in; null: not clean yet."""

    place: Place
    clean_at: str | None


class ErasedCollection(BaseModel):
    """What was erased from one collection."""

    collection: str
    num_documents: int
    num_chunks: int


class ErasureReceipt(BaseModel):
    """What was erased, and since when each place is clean; it names no document and no person."""

    id: str
    object: Literal["erasure"]
    kind: ErasureKind
    status: Literal["running", "completed"]
    num_documents: int
    num_chunks: int
    collections: list[ErasedCollection]
    places: list[CleanPlace]
    requested_at: str
    completed_at: str | None


def receipt_of(erasure: Erasure) -> ErasureReceipt:
    """Return a receipt as the API shows it."""
    return ErasureReceipt(
        id=erasure.id,
        object="erasure",
        kind=erasure.kind,
        status="completed" if erasure.completed_at else "running",
        num_documents=sum(part.num_documents for part in erasure.parts),
        num_chunks=sum(part.num_chunks for part in erasure.parts),
        collections=[
            ErasedCollection(
                collection=part.collection,
                num_documents=part.num_documents,
                num_chunks=part.num_chunks,
            )
            for part in erasure.parts
        ],
        places=[CleanPlace(place=place, clean_at=time) for place, time in erasure.places.items()],
        requested_at=erasure.requested_at,
        completed_at=erasure.completed_at,
    )
