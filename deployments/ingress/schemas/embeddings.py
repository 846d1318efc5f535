"""The body of `POST /v1/embeddings`."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from deployments.ingress.schemas.base import ModelId, Schema, one_or_many
from deployments.ingress.schemas.data import EmbeddedInput


def _refuse_tokens(value: Any) -> Any:
    if isinstance(value, list) and value and isinstance(value[0], int | list):
        message = "lists of tokens are not supported; send text"
        raise PydanticCustomError("unsupported", message)
    return value


Input = Annotated[
    Annotated[EmbeddedInput, Tag("one")]
    | Annotated[list[EmbeddedInput], Field(min_length=1, max_length=2048), Tag("many")],
    Discriminator(one_or_many),
    BeforeValidator(_refuse_tokens),
]


class EmbeddingRequest(Schema):
    """Texts to embed; a text over the model's limit is segmented, never cut."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "all-minilm-l6-v2", "input": "What is Ray?"}]}
    )

    model: ModelId
    input: Input
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(
        default=None, ge=1, le=65_536, description="must be the model's own"
    )
    user: str | None = Field(default=None, max_length=512, description="without effect")

    def texts(self) -> list[str]:
        """Return every text."""
        return [self.input] if isinstance(self.input, str) else self.input
