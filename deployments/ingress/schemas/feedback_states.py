"""Feedback as the API shows it."""

from typing import Literal

from pydantic import BaseModel

from deployments.stores.ids import microseconds, utc_of
from deployments.types.feedback import Feedback


class FeedbackInfo(BaseModel):
    """A verdict on an answer; `score` is the rating in [-1, 1]."""

    id: str
    object: Literal["feedback"]
    request_id: str
    rating: int
    scale: Literal["thumbs", "stars"]
    score: float
    comment: str
    corrected_output: str
    created_at: str


class FeedbackList(BaseModel):
    """A page of feedback, the newest first."""

    object: Literal["list"]
    data: list[FeedbackInfo]
    has_more: bool


def feedback_of(given: Feedback) -> FeedbackInfo:
    """Return feedback as the API shows it."""
    return FeedbackInfo(
        id=given.id,
        object="feedback",
        request_id=given.request_id,
        rating=given.rating,
        scale=given.scale,
        score=given.score,
        comment=given.comment,
        corrected_output=given.corrected_output,
        created_at=utc_of(microseconds(given.created_at)),
    )
