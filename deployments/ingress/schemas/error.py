"""What every error says, for the OpenAPI description."""

from pydantic import BaseModel, Field


class Error(BaseModel):
    """What went wrong; never what was sent."""

    message: str
    type: str = Field(examples=["invalid_request_error"])
    code: str = Field(examples=["invalid_request"])
    param: str | None = Field(examples=["messages[0].content"])
    request_id: str | None
