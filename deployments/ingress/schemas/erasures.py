"""The body of an erasure."""

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from deployments.errors import InvalidRequest
from deployments.ingress.schemas.base import CollectionName, Schema, no_nul
from deployments.ingress.schemas.data import DocumentId
from deployments.ingress.schemas.filters import Filter
from deployments.stores.content import MAX_ID_LENGTH, invalid
from deployments.types import ErasureScope

MAX_IDS = 10_000
SCOPES = ("ids", "filter", "subject", "all")

Subject = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH), AfterValidator(no_nul)]


class EraseRequest(Schema):
    """`POST /v1/data/delete`: exactly one of `ids`, `filter`, `subject` and `all`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"collection": "docs", "ids": ["guide"]}]}
    )

    collection: CollectionName | None = Field(
        default=None, description="may be missing with `subject`: then every collection is meant"
    )
    ids: Annotated[list[DocumentId], Field(min_length=1, max_length=MAX_IDS)] | None = None
    filter: Filter = Field(default=None, description="the documents that a search with it finds")
    subject: Subject | None = Field(
        default=None, description="the documents that were indexed with this `subject`"
    )
    all: Literal[True] | None = Field(default=None, description="the collection with all it holds")
    wait_s: float = Field(
        default=20.0, ge=0, le=120, description="longest wait for the work; it goes on afterwards"
    )

    @model_validator(mode="after")
    def _says_one_thing(self) -> "EraseRequest":
        if sum(getattr(self, name) is not None for name in SCOPES) != 1:
            raise InvalidRequest("give exactly one of `ids`, `filter`, `subject` and `all`")
        if self.collection is None and self.subject is None:
            raise invalid("name the collection", "collection")
        return self

    def scope(self) -> ErasureScope:
        """Return the graph's form; the tenant is filled in where the key is known."""
        return ErasureScope(
            tenant="",
            collection=self.collection,
            document_ids=tuple(self.ids) if self.ids is not None else None,
            filter=self.filter,
            subject=self.subject,
        )
