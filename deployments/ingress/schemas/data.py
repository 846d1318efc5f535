"""The bodies of the data routes."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, SkipValidation, model_validator

from deployments.errors import InvalidRequest
from deployments.ingress.schemas.base import (
    MAX_TEXT_CHARS,
    CollectionName,
    Filter,
    Metadata,
    Schema,
    no_nul,
)
from deployments.ingress.schemas.cleaning import CleaningOptions
from deployments.ingress.schemas.files import File
from deployments.stores.content import invalid
from deployments.types import SearchRequest


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
EmbeddedInput = Annotated[
    str, Field(min_length=1, max_length=MAX_TEXT_CHARS), AfterValidator(_not_blank)
]


class IndexDocument(Schema):
    """A document: text, or a file to extract the text from."""

    id: DocumentId | None = None
    text: DocumentText | None = None
    file: File | None = None
    title: Title | None = None
    metadata: Metadata | None = None

    @model_validator(mode="after")
    def _has_one_content(self) -> "IndexDocument":
        if (self.text is None) == (self.file is None):
            raise InvalidRequest("give exactly one of `text` and `file` for each document")
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


class SearchBody(Schema):
    """`POST /v1/data/search`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"collection": "docs", "query": "What is Ray?"}]}
    )

    collection: CollectionName
    query: Query
    top_k: int = Field(default=10, ge=1, le=100)
    mode: Literal["dense", "lexical", "hybrid"] = "hybrid"
    min_score: float | None = Field(default=None, ge=-1, le=1, description="least cosine")
    filter: Filter | None = None
    consistency: Literal["strong", "eventual"] = Field(
        default="strong", description="`eventual` may miss the last second's writes"
    )

    def request(self) -> SearchRequest:
        """Return the graph's form."""
        return SearchRequest(
            collection=self.collection,
            query=self.query,
            top_k=self.top_k,
            mode=self.mode,
            min_score=self.min_score,
            filter=self.filter,
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
