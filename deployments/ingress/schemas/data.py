"""The bodies of the data routes."""

from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, ConfigDict, Field, SkipValidation, model_validator

from deployments.errors import InvalidRequest
from deployments.ingress.schemas.base import (
    MAX_TEXT_CHARS,
    CollectionName,
    Metadata,
    ModelId,
    Schema,
    no_nul,
)
from deployments.ingress.schemas.cleaning import CleaningOptions
from deployments.ingress.schemas.files import File
from deployments.stores.content import invalid
from deployments.stores.ids import new_id

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
Subject = Annotated[
    str,
    Field(min_length=1, max_length=256, description="the person whose data the document is"),
    AfterValidator(no_nul),
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
    subject: Subject | None = None
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

    def to_json(self) -> bytes:
        """Return the request as JSON that may be sent again: each document has an id."""
        documents = [
            {**one, "id": new_id("doc")} if isinstance(one, dict) and one.get("id") is None else one
            for one in self.raw_documents
        ]
        asked: dict[str, Any] = {"collection": self.collection, "documents": documents}
        if self.clean is not None:
            asked["clean"] = self.clean.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return orjson.dumps(asked)

    @model_validator(mode="after")
    def _has_distinct_ids(self) -> "IndexRequest":
        raw = [one["id"] for one in self.raw_documents if isinstance(one, dict) and "id" in one]
        ids = [document_id for document_id in raw if isinstance(document_id, str)]
        if len(ids) != len(set(ids)):
            raise invalid("two documents have the same id", "documents")
        return self


class VectorizeRequest(Schema):
    """`POST /v1/data/vectorize`: texts into segments with their vectors."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"texts": ["What is Ray?"]}]})

    texts: Annotated[list[EmbeddedInput], Field(min_length=1, max_length=256)]
    model: ModelId | None = Field(default=None, description="left out: the default one")
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
