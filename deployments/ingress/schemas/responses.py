"""What the routes answer, for the OpenAPI description; answers are written without these."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from deployments.ingress.schemas.cleaned import CleanedDocument
from deployments.ingress.schemas.error import Error


class ErrorResponse(BaseModel):
    """The body of every error."""

    error: Error


class Usage(BaseModel):
    """How many tokens a request took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Source(BaseModel):
    """A chunk an answer rests on: `text` is `document.text[start:end]`, in code points."""

    collection: str
    document_id: str
    chunk_id: str
    title: str
    start: int
    end: int
    score: float
    text: str


class Output(BaseModel):
    """One of several choices."""

    index: int
    output: str
    finish_reason: Literal["stop", "length"]
    logprobs: list[dict[str, Any]] | None = None


class Inference(BaseModel):
    """An answer; with `n` > 1, `outputs` holds every choice and `output` the first."""

    id: str
    model: str
    output: str
    finish_reason: Literal["stop", "length"]
    usage: Usage
    sources: list[Source]
    logprobs: list[dict[str, Any]] | None = None
    outputs: list[Output] | None = None


class ChatCompletion(BaseModel):
    """OpenAI's chat completion, with `sources` when it is grounded."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: Usage
    sources: list[Source] | None = None


class Completion(BaseModel):
    """OpenAI's text completion."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: Usage


class Embeddings(BaseModel):
    """OpenAI's list of embeddings."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    model: str
    usage: dict[str, int]


class Model(BaseModel):
    """Something that can be asked."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(BaseModel):
    """Everything that can be asked."""

    object: Literal["list"]
    data: list[Model]
    has_more: bool


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


class Neighbor(BaseModel):
    """A chunk of the same document: `text` is `document.text[start:end]`."""

    chunk_id: str
    text: str
    start: int
    end: int


class Chunk(BaseModel):
    """A stored chunk and how well it matches."""

    chunk_id: str
    document_id: str
    title: str
    text: str
    start: int
    end: int
    score: float
    cosine: float | None
    rerank_score: float | None
    metadata: dict[str, Any]
    before: list[Neighbor] | None = Field(None, description="with `neighbors`; nearest last")
    after: list[Neighbor] | None = Field(None, description="with `neighbors`; nearest first")
    highlights: list[tuple[int, int]] | None = Field(None, description="spans of `text`")


class SearchResult(BaseModel):
    """Chunks, best first."""

    collection: str
    results: list[Chunk]


class VectorSegment(BaseModel):
    """A piece `text[start:end]` and its vector."""

    start: int
    end: int
    num_tokens: int
    vector: list[float]


class VectorizedText(BaseModel):
    """The segments of one text."""

    index: int
    segments: list[VectorSegment]
    text: str | None = None


class Vectorized(BaseModel):
    """Every text's segments, in order."""

    model: str
    dim: int
    data: list[VectorizedText]
    usage: dict[str, int]


class Collection(BaseModel):
    """A collection."""

    name: str
    description: str
    embedding_model: str
    dim: int
    num_documents: int
    num_chunks: int
    sequence: int
    created_at: str


class CollectionList(BaseModel):
    """A page of collections, by name."""

    object: Literal["list"]
    data: list[Collection]
    has_more: bool


class Deleted(BaseModel):
    """What was deleted."""

    id: str
    deleted: Literal[True]


class StoredDocument(BaseModel):
    """A document as it is stored."""

    id: str
    collection: str
    title: str
    text: str
    metadata: dict[str, Any]
    num_chunks: int
    created_at: str
    updated_at: str


class Health(BaseModel):
    """The process lives."""

    status: Literal["ok"]


class Readiness(BaseModel):
    """Whether each part the graph needs answers."""

    status: Literal["ready", "unready"]
    parts: dict[str, bool]
