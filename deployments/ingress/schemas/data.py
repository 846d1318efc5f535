"""The bodies of the data routes."""

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from deployments.ingress.schemas.base import (
    MAX_TEXT_CHARS,
    CollectionName,
    Filter,
    Metadata,
    Schema,
    no_nul,
)
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


class File(Schema):
    """A file as it is; its name tells the kind."""

    filename: str = Field(pattern=r"^[^\x00-\x1f]{1,255}$", examples=["guide.pdf"])
    content_base64: str = Field(min_length=1)


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
            message = "give exactly one of `text` and `file` for each document"
            raise invalid(message, "documents")
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
    documents: Annotated[list[IndexDocument], Field(min_length=1)]

    @model_validator(mode="after")
    def _has_distinct_ids(self) -> "IndexRequest":
        ids = [document.id for document in self.documents if document.id is not None]
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
    rerank: bool = Field(default=False, description="reorder candidates by the default reranker")
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


class CreateCollection(Schema):
    """`POST /v1/data/collections`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "docs"}]})

    name: CollectionName
    description: Annotated[str, Field(max_length=2000), AfterValidator(no_nul)] = ""
