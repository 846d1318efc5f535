"""The body that creates a batch."""

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from deployments.ingress.schemas.base import Schema, no_nul
from deployments.types.batches import BatchEndpoint

MIN_KEPT_S, MAX_KEPT_S = 3600, 30 * 86_400

Text = AfterValidator(no_nul)
MetadataKey = Annotated[str, Field(min_length=1, max_length=64), Text]
MetadataValue = Annotated[str, Field(max_length=512), Text]


class ExpiresAfter(Schema):
    """When a file goes by itself."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=MIN_KEPT_S, le=MAX_KEPT_S)


class CreateBatch(Schema):
    """`POST /v1/batches`: which file of requests is done, and by which route."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "input_file_id": "file_01994f3e8a7b7cc2a1d6a5b3c4d5e6f7",
                    "endpoint": "/v1/chat/completions",
                    "completion_window": "24h",
                }
            ]
        }
    )

    input_file_id: Annotated[str, Field(min_length=1, max_length=64), Text] = Field(
        description="of a file that was uploaded with the purpose `batch`"
    )
    endpoint: BatchEndpoint = Field(description="which every line of the file names as its `url`")
    completion_window: Literal["24h"]
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)] | None = None
    output_expires_after: ExpiresAfter | None = None
