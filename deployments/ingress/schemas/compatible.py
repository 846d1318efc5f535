"""What the rerank and Dify routes answer, for the OpenAPI description, in their clients' forms."""

from typing import Any, Literal

from pydantic import BaseModel, Field


class RerankedDocument(BaseModel):
    """A document's place in the request, and how well it answers; itself when that was asked."""

    index: int
    relevance_score: float = Field(ge=0, le=1)
    document: dict[str, Any] | None = None


class Reranked(BaseModel):
    """Documents, best first."""

    id: str
    model: str
    results: list[RerankedDocument]
    meta: dict[str, Any]
    usage: dict[str, int]


class RerankedText(BaseModel):
    """TEI's row; `score` is a logit when `raw_scores` was asked."""

    index: int
    score: float
    text: str | None = None


class TeiErrorResponse(BaseModel):
    """TEI's form of an error."""

    error: str
    error_type: Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"]


class DifyRecord(BaseModel):
    """A chunk as Dify shows it; `metadata` always names the document."""

    content: str
    score: float = Field(ge=0, le=1)
    title: str
    metadata: dict[str, Any]


class DifyRecords(BaseModel):
    """Records, best first."""

    records: list[DifyRecord]


class DifyErrorResponse(BaseModel):
    """Dify's form of an error."""

    error_code: int = Field(examples=[1001, 1002, 2001])
    error_msg: str


class DifyHealth(BaseModel):
    """A retrieval works."""

    status: Literal["ok"]
    num_records: int
