"""What the routes answer about what is stored, for the OpenAPI description."""

from typing import Any, Literal

from pydantic import BaseModel

from deployments.ingress.schemas.cleaned import CleanedDocument
from deployments.ingress.schemas.error import Error
from deployments.types import IndexKind, Metric, VectorStorage


class Indexed(BaseModel):
    """What became of one document."""

    id: str
    status: Literal["created", "replaced", "unchanged"]
    num_chunks: int


class IndexFailure(BaseModel):
    """A document that could not be stored."""

    id: str | None
    filename: str | None
    error: Error


class IndexResult(BaseModel):
    """What became of the documents of a call."""

    collection: str
    documents: list[Indexed]
    errors: list[IndexFailure]
    cleaned: list[CleanedDocument] | None = None


class Index(BaseModel):
    """How replicas hold a collection's vectors."""

    kind: IndexKind
    storage: VectorStorage


class Collection(BaseModel):
    """A collection and its settings; null: callers bring every vector."""

    name: str
    description: str
    embedding_model: str | None
    dim: int
    metric: Metric
    index: Index
    default_metadata: dict[str, Any]
    num_documents: int
    num_chunks: int
    sequence: int
    created_at: str


class IndexState(BaseModel):
    """What one replica holds of a collection's vectors.

    The newest `num_rows - num_indexed` rows are searched exactly. `recall_at_10` was measured
    against an exact search of what is held; null: every search is exact.
    """

    kind: Literal["flat", "hnsw", "ivfpq"]
    storage: VectorStorage
    num_rows: int
    num_indexed: int
    num_dead: int
    num_bytes: int
    recall_at_10: float | None
    nprobe: int | None
    ef_search: int | None
    built_at: str | None


class CollectionState(Collection):
    """A collection, and how the replicas that have it in memory hold its vectors now."""

    index_stats: list[IndexState]


class CollectionList(BaseModel):
    """A page of collections, by name."""

    object: Literal["list"]
    data: list[Collection]
    has_more: bool


class Deleted(BaseModel):
    """What was deleted."""

    id: str
    deleted: Literal[True]


class ListedDocument(BaseModel):
    """A document without its text."""

    id: str
    title: str
    metadata: dict[str, Any]
    subject: str | None
    num_chunks: int
    created_at: str
    updated_at: str


class DocumentList(BaseModel):
    """A page of documents, by id."""

    object: Literal["list"]
    data: list[ListedDocument]
    has_more: bool


class StoredDocument(ListedDocument):
    """A document as it is stored."""

    collection: str
    text: str
