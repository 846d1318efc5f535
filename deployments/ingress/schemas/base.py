"""The base of every request: strict types, unknown fields refused, and the shared field types."""

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from deployments.stores.content import COLLECTION_NAME

MAX_TEXT_CHARS = 1_000_000
COLLECTION_PATTERN = f"^{COLLECTION_NAME.pattern}$"
MAX_METADATA_MEMBERS = 1024


class Schema(BaseModel):
    """Strict: `true` is no integer, `"1"` is no number, `NaN` is no float."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


def _refuse(value: Any) -> None:
    if value is not None and value != [] and value != {}:
        raise PydanticCustomError("unsupported", "this server cannot do that; leave it out")


Unsupported = Annotated[
    None,
    BeforeValidator(_refuse),
    WithJsonSchema({"type": "null", "description": "Not supported: anything else is refused."}),
]
"""A field of the API that no engine here can serve: empty is accepted, all else refused."""


def one_or_many(value: Any) -> str:
    """Tell the members of `x | list[x]` apart, so that an error names the right field."""
    return "many" if isinstance(value, list) else "one"


def no_nul(text: str) -> str:
    """Refuse U+0000, which SQL databases cannot store."""
    if "\x00" in text:
        raise ValueError("must not hold the character U+0000")
    return text


def _bounded_object(value: dict[str, Any]) -> dict[str, Any]:
    """Bound an object of the caller's: number of members at any depth, no U+0000."""
    members = 0
    todo: list[Any] = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            no_nul(item)
        elif isinstance(item, dict | list):
            members += len(item)
            todo += [*item, *item.values()] if isinstance(item, dict) else item
        if members > MAX_METADATA_MEMBERS:
            raise ValueError("holds too many members")
    return value


ModelId = Annotated[str, Field(min_length=1, max_length=200, description="id of `GET /v1/models`")]
CollectionName = Annotated[
    str, Field(pattern=COLLECTION_PATTERN, description="Name of a collection", examples=["docs"])
]
Scalar = str | int | float | bool | None
Metadata = Annotated[
    dict[str, Scalar | list[Scalar]],
    Field(max_length=64, description="A flat JSON object: scalars and lists of scalars"),
    AfterValidator(_bounded_object),
]
