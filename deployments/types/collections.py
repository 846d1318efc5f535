"""A collection: what it holds, how it is searched, and how large it is."""

from dataclasses import dataclass, field
from typing import Any, Literal

Metric = Literal["cosine", "dot", "l2"]
"""How two vectors are compared. Only `cosine` normalises vectors that callers bring."""

IndexKind = Literal["auto", "flat", "hnsw", "ivfpq"]
"""`auto` chooses by the number of chunks; `flat` is exact."""

VectorStorage = Literal["fp32", "fp16", "int8"]
"""How a vector is held in memory; the database keeps all of it. `int8` is for `cosine` only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSettings:
    """How replicas hold a collection's vectors. Changing it rebuilds their indexes, no data."""

    kind: IndexKind = "auto"
    storage: VectorStorage = "fp32"


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexStats:
    """What one replica holds of a collection's vectors, and how well it finds them.

    `kind` is what searches use now: `flat` until something faster is built. The newest
    `num_rows - num_indexed` rows are searched exactly. `recall_at_10` was measured on stored rows,
    against an exact search of what is held; None is exact. `num_bytes` counts vectors, index and
    bookkeeping, `num_dead` rows that wait for a compaction.
    """

    kind: Literal["flat", "hnsw", "ivfpq"]
    storage: VectorStorage
    num_rows: int
    num_indexed: int
    num_dead: int
    num_bytes: int
    recall_at_10: float | None = None
    nprobe: int | None = None
    ef_search: int | None = None
    built_at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionSettings:
    """What a collection is created with; model, dimension and metric never change afterwards.

    `embedding_model` is "" where callers bring every vector. `default_metadata` is what a
    document has where its own metadata does not say.
    """

    description: str = ""
    embedding_model: str
    dim: int
    metric: Metric = "cosine"
    index: IndexSettings = field(default_factory=IndexSettings)
    default_metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionChanges:
    """What of a collection's settings changes; None leaves one as it is.

    `default_metadata` takes the place of the old one as a whole.
    """

    description: str | None = None
    index_kind: IndexKind | None = None
    index_storage: VectorStorage | None = None
    default_metadata: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class VectorSpace:
    """What a collection's vectors are; two are comparable only within one."""

    embedding_model: str
    dim: int
    metric: Metric = "cosine"


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionInfo(CollectionSettings):
    """A collection as the API shows it; `name` is its path until the ingress strips it."""

    name: str
    num_documents: int
    num_chunks: int
    sequence: int
    created_at: str
