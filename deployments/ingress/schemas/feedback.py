"""What somebody thinks of an answer."""

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from deployments.ingress.schemas.base import Schema, no_nul
from deployments.ingress.schemas.data import Subject
from deployments.stores.content import invalid
from deployments.types.feedback import Scale

RATINGS: dict[Scale, tuple[int, int]] = {"thumbs": (-1, 1), "stars": (1, 5)}

Words = Annotated[str, Field(max_length=65_536), AfterValidator(no_nul)]


class GiveFeedback(Schema):
    """`POST /v1/models/feedback`: a verdict on the answer to a past request."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"request_id": "req_0193f0c1d2e37a6b8c9d0e1f2a3b4c5d", "rating": -1},
                {"request_id": "8d0c4f5e-1b7a-4c39-9d5e-2f6a7b8c9d0e", "rating": 4},
            ]
        }
    )

    request_id: str = Field(
        pattern=r"^[0-9A-Za-z_-]{1,64}$", description="the header `x-request-id` of the answer"
    )
    rating: int = Field(ge=-1, le=5, description="-1, 0 or 1; or 1 to 5 stars")
    scale: Literal["thumbs", "stars"] | None = Field(
        default=None, description="left out: `stars` from 2 on, else `thumbs`"
    )
    comment: Words = ""
    corrected_output: Words = Field(default="", description="what the answer should have been")
    subject: Subject | None = Field(
        default=None, description="the person whose words these are, so that erasure finds them"
    )

    @property
    def meant(self) -> Scale:
        """Return the scale of the rating."""
        return self.scale or ("stars" if self.rating > 1 else "thumbs")

    @model_validator(mode="after")
    def _is_on_the_scale(self) -> "GiveFeedback":
        low, high = RATINGS[self.meant]
        if not low <= self.rating <= high:
            raise invalid(f"a rating of `{self.meant}` is {low} to {high}", "rating")
        return self
