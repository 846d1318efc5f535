"""The bodies of the data routes."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, SkipValidation, model_validator

from deployments.errors import InvalidRequest
from deployments.ingress.schemas.base import (
    MAX_TEXT_CHARS,
    CollectionName,
    Metadata,
    Schema,
    no_nul,
)
from deployments.ingress.schemas.cleaning import CleaningOptions
from deployments.ingress.schemas.files import File
from deployments.ingress.schemas.filters import Filter
from deployments.stores.content import invalid
from deployments.types import SearchRequest

MAX_CHUNKS = 10_000
MAX_DIM = 16_384
"""Longest vector that is read at all; each collection has one length."""


def _no_dot_segments(document_id: str) -> str:
    if any(segment in {"", ".", ".."} for segment in document_id.split("/")):
        raise ValueError("must not hold an empty, `.` or `..` segment")
    return document_id


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return no_nul(text)


DocumentId = Annotated[
    str,
    Field(pattern=r"^\w[\w.:@/ -]{0,199}$", description="id of a document"),
    AfterValidator(_no_dot_segments),
]
Title = Annotated[str, Field(max_length=500), AfterValidator(no_nul)]
DocumentText = Annotated[str, Field(min_length=1), AfterValidator(_not_blank)]
Query = Annotated[str, Field(min_length=1, max_length=32_768), AfterValidator(_not_blank)]
Vector = Annotated[list[float], Field(min_length=1, max_length=MAX_DIM)]
ReadyVector = Annotated[list[float], Field(max_length=MAX_DIM)]
"""Its length and direction are checked, and reported, for each document alone."""
EmbeddedInput = Annotated[
    str, Field(min_length=1, max_length=MAX_TEXT_CHARS), AfterValidator(_not_blank)
]


class ReadyChunk(Schema):
    """A part of a document with its vector, made elsewhere by the same model."""

    text: DocumentText
    vector: ReadyVector
    start: int | None = Field(default=None, ge=0, description="in the document's text")
    end: int | None = Field(default=None, ge=1)


class IndexDocument(Schema):
    """A document: text, or a file to extract the text from; or text with ready vectors.

    `vector` is that of the whole text. `chunks` are parts of `text`; where it is missing, the
    document is the chunks, with a blank line between each two.
    """

    id: DocumentId | None = None
    text: DocumentText | None = None
    file: File | None = None
    title: Title | None = None
    metadata: Metadata | None = None
    vector: ReadyVector | None = None
    chunks: Annotated[list[ReadyChunk], Field(min_length=1, max_length=MAX_CHUNKS)] | None = None

    @property
    def is_ready(self) -> bool:
        """Return whether the document brings its vectors."""
        return self.vector is not None or self.chunks is not None

    @model_validator(mode="after")
    def _has_one_content(self) -> "IndexDocument":
        if (self.text is None and self.chunks is None) == (self.file is None):
            raise InvalidRequest("give exactly one of `text` and `file` for each document")
        if self.vector is not None and (self.text is None or self.chunks is not None):
            raise InvalidRequest("`vector` needs `text`, and no `chunks` beside it")
        return self


class IndexRequest(Schema):
    """`POST /v1/data/index`: store documents, replacing those with the same id."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "collection": "docs",
                    "documents": [{"id": "guide", "title": "Guide", "text": "Ray is a system."}],
                }
            ]
        }
    )

    collection: CollectionName
    documents: Annotated[list[SkipValidation[IndexDocument]], Field(min_length=1)]
    clean: CleaningOptions | None = Field(
        default=None,
        description="clean texts and titles before they are stored; `{}`: as usual",
    )

    @property
    def raw_documents(self) -> list[Any]:
        """Return the documents as they came: each is validated for itself, to fail for itself."""
        return list(self.documents)

    @model_validator(mode="after")
    def _has_distinct_ids(self) -> "IndexRequest":
        raw = [one["id"] for one in self.raw_documents if isinstance(one, dict) and "id" in one]
        ids = [document_id for document_id in raw if isinstance(document_id, str)]
        if len(ids) != len(set(ids)):
            raise invalid("two documents have the same id", "documents")
        return self


class Weights(Schema):
    """What each ranking of a hybrid search counts for."""

    dense: float = Field(default=1.0, ge=0, le=1)
    lexical: float = Field(default=1.0, ge=0, le=1)


class SearchBody(Schema):
    """`POST /v1/data/search`: `query`, or in dense mode a ready `vector` in its place."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"collection": "docs", "query": "What is Ray?"}]}
    )

    collection: CollectionName
    query: Query | None = None
    vector: Vector | None = Field(default=None, description="dense mode only; normalised here")
    top_k: int = Field(default=10, ge=1, le=100)
    offset: int = Field(default=0, ge=0, le=10_000, description="results to skip")
    mode: Literal["dense", "lexical", "hybrid"] = "hybrid"
    min_score: float | None = Field(default=None, ge=-1, le=1, description="least cosine")
    filter: Filter = None
    weights: Weights | None = Field(default=None, description="of the rankings of hybrid mode")
    candidates: int | None = Field(
        default=None, ge=1, le=1000, description="results of each ranking that hybrid mode fuses"
    )
    group_by: Literal["document"] | None = Field(
        default=None, description="only the best chunks of each document"
    )
    max_per_document: int | None = Field(default=None, ge=1, le=100, description="1 when grouped")
    neighbors: int = Field(default=0, ge=0, le=10, description="chunks before and after each")
    highlights: bool = Field(default=False, description="spans of the query's words in each text")
    consistency: Literal["strong", "eventual"] = Field(
        default="strong", description="`eventual` may miss the last second's writes"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "SearchBody":
        if (self.query is None) == (self.vector is None):
            param = "vector" if self.query else "query"
            raise invalid("give exactly one of `query` and `vector`", param)
        if self.vector is not None and self.mode != "dense":
            raise invalid("a ready vector works in dense mode only", "vector")
        if self.vector is not None and self.highlights:
            raise invalid("highlights are of a query's words", "highlights")
        if self.max_per_document is not None and self.group_by is None:
            raise invalid("`max_per_document` needs `group_by`", "max_per_document")
        for name in ("weights", "candidates"):
            if getattr(self, name) is not None and self.mode != "hybrid":
                raise invalid(f"`{name}` is for hybrid mode", name)
        if self.weights is not None and self.weights.dense + self.weights.lexical == 0:
            raise invalid("one of the weights must be positive", "weights")
        return self

    def request(self) -> SearchRequest:
        """Return the graph's form."""
        weights = self.weights or Weights()
        return SearchRequest(
            collection=self.collection,
            query=self.query or "",
            vector=None if self.vector is None else tuple(map(float, self.vector)),
            top_k=self.top_k,
            offset=self.offset,
            mode=self.mode,
            min_score=self.min_score,
            filter=self.filter,
            weights=(float(weights.dense), float(weights.lexical)),
            candidates=self.candidates,
            max_per_document=(self.max_per_document or 1) if self.group_by else None,
            neighbors=self.neighbors,
            has_highlights=self.highlights,
            is_eventual=self.consistency == "eventual",
        )


class VectorizeRequest(Schema):
    """`POST /v1/data/vectorize`: texts into segments with their vectors."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"texts": ["What is Ray?"]}]})

    texts: Annotated[list[EmbeddedInput], Field(min_length=1, max_length=256)]
    overlap: int | None = Field(
        default=None,
        ge=0,
        le=256,
        description="tokens that a segment shares with the one before it, at most half of it; "
        "by default as in indexing",
    )
    clean: CleaningOptions | None = Field(
        default=None, description="clean the texts first; offsets are into the `text` returned"
    )


class CreateCollection(Schema):
    """`POST /v1/data/collections`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "docs"}]})

    name: CollectionName
    description: Annotated[str, Field(max_length=2000), AfterValidator(no_nul)] = ""
