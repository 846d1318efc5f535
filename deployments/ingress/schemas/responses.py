"""What the routes answer, for the OpenAPI description; answers are written without these."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from deployments.ingress.schemas.error import Error


class ErrorResponse(BaseModel):
    """The body of every error."""

    error: Error


class Embeddings(BaseModel):
    """OpenAI's list of embeddings."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    model: str
    usage: dict[str, int]


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


class Health(BaseModel):
    """The process lives."""

    status: Literal["ok"]


class Readiness(BaseModel):
    """Whether each part the graph needs answers."""

    status: Literal["ready", "unready"]
    parts: dict[str, bool]
