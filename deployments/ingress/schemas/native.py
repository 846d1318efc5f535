"""The body of `POST /v1/inference`."""

from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from deployments.ingress.schemas.base import MAX_TEXT_CHARS, ModelId
from deployments.ingress.schemas.messages import Messages
from deployments.ingress.schemas.sampling import (
    TOP_LOGPROBS,
    ResponseFormat,
    RetrievalOptions,
    Sampling,
)
from deployments.stores.content import invalid
from deployments.types import Grammar, Message, SamplingParams


class InferenceRequest(Sampling):
    """A prompt or a chat, and how to answer it; `prompt` is a chat of one user message."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"prompt": "What is the capital of France?", "max_tokens": 32},
                {
                    "prompt": "Which port does the edge listen on?",
                    "retrieval": {"collection": "docs", "top_k": 3},
                    "stream": True,
                },
            ]
        }
    )

    prompt: str | None = Field(default=None, min_length=1, max_length=MAX_TEXT_CHARS)
    messages: Messages | None = None
    model: ModelId | None = None
    logprobs: int | None = Field(
        default=None, ge=0, le=TOP_LOGPROBS, description="alternatives reported per token"
    )
    response_format: ResponseFormat | None = None
    format: Literal["text", "json"] | None = Field(
        default=None, description="`json` is short for a response_format of type json_object"
    )
    retrieval: RetrievalOptions | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> "InferenceRequest":
        if (self.prompt is None) == (self.messages is None):
            raise invalid("give exactly one of `prompt` and `messages`", "prompt")
        if self.format == "json" and self.response_format is not None:
            message = "give only one of `format` and `response_format`"
            raise invalid(message, "format")
        return self

    def chat(self) -> tuple[Message, ...]:
        """Return the turns of the chat."""
        if self.prompt is not None:
            return (Message("user", self.prompt),)
        return tuple(message.message() for message in self.messages or ())

    def sampling(self) -> SamplingParams:
        """Return how the answer is sampled."""
        grammar = self.response_format.grammar() if self.response_format else None
        if self.format == "json":
            grammar = Grammar("json_object")
        return self.params(logprobs=self.logprobs, grammar=grammar)
