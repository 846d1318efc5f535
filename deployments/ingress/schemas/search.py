"""The body of a search."""

from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from deployments.ingress.schemas.base import CollectionName, Schema
from deployments.ingress.schemas.data import Query, Vector
from deployments.ingress.schemas.filters import Filter
from deployments.stores.content import invalid
from deployments.types import MAX_RERANKED, SearchRequest


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
    rerank: bool = Field(default=False, description="reorder candidates by the default reranker")
    nprobe: int | None = Field(
        default=None,
        ge=1,
        le=65_536,
        description="lists of an IVF index to look at; no effect while another index is in use",
    )
    ef_search: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="nodes of an HNSW graph to look at; no effect while another index is in use",
    )
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
        if self.rerank and self.query is None:
            raise invalid("texts are reranked by a `query`", "rerank")
        if self.rerank and self.offset + self.top_k > MAX_RERANKED:
            raise invalid(f"reranking reaches the first {MAX_RERANKED} results", "offset")
        if self.max_per_document is not None and self.group_by is None:
            raise invalid("`max_per_document` needs `group_by`", "max_per_document")
        for name in ("weights", "candidates"):
            if getattr(self, name) is not None and self.mode != "hybrid":
                raise invalid(f"`{name}` is for hybrid mode", name)
        for name in ("nprobe", "ef_search"):
            if getattr(self, name) is not None and self.mode == "lexical":
                raise invalid(f"`{name}` is for searches by vector", name)
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
            nprobe=self.nprobe,
            ef_search=self.ef_search,
        )
