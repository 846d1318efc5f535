"""The bodies that create and change a collection."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from deployments.ingress.schemas.base import CollectionName, Metadata, ModelId, Schema, no_nul
from deployments.ingress.schemas.data import MAX_DIM
from deployments.stores.content import invalid
from deployments.types import (
    CollectionChanges,
    CollectionSettings,
    IndexKind,
    IndexSettings,
    Metric,
    VectorStorage,
)

KIND = "`auto` chooses by the number of chunks; `flat` is exact"
STORAGE = "how replicas hold a vector in memory; `int8` is for the metric `cosine` only"
DEFAULTS = "what a document has where its own metadata does not say"

Description = Annotated[str, Field(max_length=2000), AfterValidator(no_nul)]


def _refuse(value: Any) -> None:
    if value is not None:
        message = "cannot be changed; create another collection"
        raise PydanticCustomError("fixed", message)


Fixed = Annotated[
    None,
    BeforeValidator(_refuse),
    WithJsonSchema({"type": "null", "description": "Cannot be changed: anything is refused."}),
]
"""A setting that stays what it was when the collection was created."""


class IndexBody(Schema):
    """How replicas hold a collection's vectors."""

    kind: IndexKind = Field(default="auto", description=KIND)
    storage: VectorStorage = Field(default="fp32", description=STORAGE)

    def settings(self) -> IndexSettings:
        """Return the store's form."""
        return IndexSettings(kind=self.kind, storage=self.storage)


class IndexChange(Schema):
    """What changes of how vectors are held; each replica builds its index again, and no data."""

    kind: IndexKind | None = Field(default=None, description=KIND)
    storage: VectorStorage | None = Field(default=None, description=STORAGE)


class CreateCollection(Schema):
    """`POST /v1/data/collections`; `embedding_model`, `dim` and `metric` never change afterwards.

    A collection without an embedding model (null) takes documents with ready vectors of `dim`
    numbers, and is searched by ready vectors and by words.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "docs"},
                {
                    "name": "reports",
                    "index": {"kind": "hnsw", "storage": "fp16"},
                    "default_metadata": {"department": "finance"},
                },
                {"name": "ready", "embedding_model": None, "dim": 1024, "metric": "dot"},
            ]
        }
    )

    name: CollectionName
    description: Description = ""
    embedding_model: ModelId | None = Field(
        default=None, description="left out: the default one; null: callers bring every vector"
    )
    dim: int | None = Field(
        default=None, ge=1, le=MAX_DIM, description="of the vectors; with a model, its own or none"
    )
    metric: Metric = Field(
        default="cosine", description="how vectors are compared; `cosine` normalises those brought"
    )
    index: IndexBody = IndexBody()
    default_metadata: Metadata = Field(default={}, description=DEFAULTS)

    def model(self, default: str) -> str:
        """Return the embedding model's id, "" for none."""
        if self.embedding_model is None:
            return "" if "embedding_model" in self.model_fields_set else default
        return str(self.embedding_model)

    def settings(self, model: str, dim: int | None) -> CollectionSettings:
        """Return the store's form.

        Args:
            model: the embedding model's id, "" for none.
            dim: of its vectors; None without a model.

        Raises:
            InvalidRequest: `dim` is missing, or another than the model's.
        """
        if dim is None and self.dim is None:
            raise invalid("without an embedding model, say how long vectors are", "dim")
        if dim is not None and self.dim not in {None, dim}:
            raise invalid(f"the model's vectors have {dim} dimensions", "dim")
        return CollectionSettings(
            description=self.description,
            embedding_model=model,
            dim=dim or self.dim or 0,
            metric=self.metric,
            index=self.index.settings(),
            default_metadata=dict(self.default_metadata),
        )


class UpdateCollection(Schema):
    """`PATCH /v1/data/collections/{name}`: what is left out or null stays as it is.

    A new `default_metadata` takes the place of the old one as a whole. It is for the documents
    stored from then on; indexing an unchanged document again gives it the new defaults.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"description": "Reports of 2026", "index": {"kind": "flat"}}]
        }
    )

    description: Description | None = None
    index: IndexChange | None = None
    default_metadata: Metadata | None = Field(default=None, description=DEFAULTS)
    name: Fixed = None
    embedding_model: Fixed = None
    dim: Fixed = None
    metric: Fixed = None

    def changes(self) -> CollectionChanges:
        """Return the store's form."""
        index = self.index or IndexChange()
        defaults = self.default_metadata
        return CollectionChanges(
            description=self.description,
            index_kind=index.kind,
            index_storage=index.storage,
            default_metadata=None if defaults is None else dict(defaults),
        )
