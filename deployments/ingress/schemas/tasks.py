"""The bodies of work that outlives its request, and of many requests in one."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, SkipValidation

from deployments.ingress.schemas.base import Schema
from deployments.ingress.schemas.native import InferenceRequest
from deployments.types.tasks import HIGHEST, LOWEST, NORMAL

MAX_DELAY_S = 366 * 86_400.0


def _with_offset(time: str) -> str:
    try:
        parsed = datetime.fromisoformat(time)
    except ValueError:
        raise ValueError("a time in ISO 8601, such as 2027-01-01T00:00:00Z") from None
    if parsed.tzinfo is None:
        raise ValueError("a time with its offset, such as 2027-01-01T00:00:00Z")
    if not 1970 < parsed.year < 9999:
        raise ValueError("a time after 1970")
    return time


Time = Annotated[str, Field(max_length=64), AfterValidator(_with_offset)]


class TaskOptions(Schema):
    """When a task may begin, and what happens to its result."""

    priority: int = Field(
        default=NORMAL, ge=LOWEST, le=HIGHEST, description="the higher one begins first"
    )
    not_before: Time | None = Field(default=None, description="it does not begin earlier")
    deadline_s: float | None = Field(
        default=None, gt=0, le=MAX_DELAY_S, description="from now; what is not done then has failed"
    )
    keep_s: float | None = Field(
        default=None, ge=1, le=MAX_DELAY_S, description="for the result, up to the server's bound"
    )
    webhook: Annotated[str, Field(min_length=1, max_length=2048)] | None = Field(
        default=None, description="URL that is told, signed, when the task has ended"
    )


OPTIONS = frozenset(TaskOptions.model_fields)


class AsyncInference(InferenceRequest, TaskOptions):
    """`POST /v1/inference/async`: as `POST /v1/inference`, and when to do it.

    With `stream`, what the model says can be followed at `/v1/tasks/{id}/events`.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"prompt": "What is the capital of France?", "max_tokens": 32, "priority": 7},
                {"prompt": "Tell a long story.", "stream": True, "deadline_s": 600},
            ]
        }
    )


class BatchInference(Schema):
    """`POST /v1/inference/batch`: many requests of `POST /v1/inference`, none of them streamed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "requests": [
                        {"prompt": "What is the capital of France?", "max_tokens": 16},
                        {"prompt": "What is the capital of Spain?", "max_tokens": 16},
                    ]
                }
            ]
        }
    )

    requests: Annotated[
        list[SkipValidation[InferenceRequest]], Field(min_length=1, max_length=10_000)
    ]

    @property
    def raw_requests(self) -> list[Any]:
        """Return the requests as they came: each is validated for itself, to fail for itself."""
        return list(self.requests)
