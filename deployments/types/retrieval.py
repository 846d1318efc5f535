"""Messages of embedding, indexing and search: texts, segments, documents, chunks."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deployments.types.filters import MetadataFilter

Vectors = NDArray[np.float32]
"""float32[n, dim], rows L2-normalised, but for collections of another metric than `cosine`."""

SearchMode = Literal["dense", "lexical", "hybrid"]

MAX_RERANKED = 100
"""Most chunks that one search reranks."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece `text[start:end]` that fits the embedding model; offsets in code points."""

    start: int
    end: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class EmbeddedText:
    """The segments of one text and their vectors, float32[len(segments), dim], in order."""

    segments: tuple[Segment, ...]
    vectors: Vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A text to store. `id` is the caller's or a new `doc_…`; `metadata` is a flat JSON object.

    `subject` names the person whose data it is, so that it can be erased. `embedded` are segments
    and vectors that the caller brings; nobody embeds the text then.
    """

    id: str
    text: str
    title: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    subject: str | None = None
    embedded: EmbeddedText | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class IndexedDocument:
    """What became of one document: `status` is created, replaced or unchanged."""

    id: str
    status: Literal["created", "replaced", "unchanged"]
    num_chunks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """One search. `min_score` is a bound on the cosine similarity, whatever mode and metric.

    With the metrics `dot` and `l2` it takes hits from the nearest, and none comes in their place.
    `vector` takes the place of `query` in dense mode. `offset` hits are skipped. Hybrid fuses the
    best `candidates` of each kind (None: the replica's default, `top_k` if that is more), whatever
    the offset, with the `weights` of dense and lexical. `max_per_document` bounds the chunks of one
    document. Each hit comes with as many `neighbors` before and after it, and `has_highlights`.
    `nprobe` lists of an IVF index, and `ef_search` nodes of an HNSW graph, are looked at: more find
    more of the true neighbours and take longer (None: as many as the replica found to be enough).
    An `auto` index has the kind that its size asks for, and may not heed them; where the settings
    rule that kind out they are refused.
    """

    collection: str
    query: str = ""
    vector: tuple[float, ...] | None = None
    top_k: int = 10
    offset: int = 0
    mode: SearchMode = "hybrid"
    min_score: float | None = None
    filter: "MetadataFilter | None" = None
    weights: tuple[float, float] = (1.0, 1.0)
    candidates: int | None = None
    max_per_document: int | None = None
    neighbors: int = 0
    has_highlights: bool = False
    is_eventual: bool = False
    nprobe: int | None = None
    ef_search: int | None = None


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a document: `text` is `document.text[start:end]`."""

    chunk_id: str
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredChunk:
    """A stored chunk and how well it matches; `text` is `document.text[start:end]`.

    `score` orders the results, higher is better: BM25 for lexical, reciprocal-rank fusion for
    hybrid, for dense what the collection's metric says: the cosine in [-1, 1], the inner product
    (`dot`) or the negative squared distance (`l2`). `rerank_score`, in [0, 1], is there where the
    results were reranked. `cosine` is given whenever a query vector was, whatever the metric, so
    that bounds on it mean the same everywhere.
    """

    chunk_id: str
    document_id: str
    title: str
    text: str
    start: int
    end: int
    score: float
    cosine: float | None = None
    rerank_score: float | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    before: tuple[Passage, ...] = ()
    after: tuple[Passage, ...] = ()
    highlights: tuple[tuple[int, int], ...] = ()
    """Spans `text[start:end]` of the query's words, in order, where they were asked for."""


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document as it is stored; a source's span is `document.text[start:end]`."""

    document: Document
    num_chunks: int
    created_at: str
    updated_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentInfo:
    """A document as a list shows it: everything but its text."""

    id: str
    title: str
    metadata: dict[str, Any]
    subject: str | None
    num_chunks: int
    created_at: str
    updated_at: str


@dataclass(frozen=True, slots=True)
class Relevance:
    """How well each of some texts answers a query: scores in [0, 1], in the texts' order."""

    scores: tuple[float, ...]
    num_tokens: int
