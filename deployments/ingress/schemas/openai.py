"""The bodies of the OpenAI routes.

Fields without effect on an answer (`user`, `metadata`, …) are accepted; what would have an effect
that no engine here can give is refused by name.
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from deployments.ingress.schemas.base import MAX_TEXT_CHARS, ModelId, Schema, Unsupported
from deployments.ingress.schemas.messages import Messages
from deployments.ingress.schemas.sampling import (
    MAX_CHOICES,
    TOP_LOGPROBS,
    MaxTokens,
    ResponseFormat,
    RetrievalOptions,
    Sampling,
)
from deployments.stores.content import invalid
from deployments.types import Message, SamplingParams

Label = Annotated[str, Field(max_length=512)]
PromptText = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
PromptTokens = Annotated[
    list[Annotated[int, Field(ge=0, le=2**31 - 1)]], Field(min_length=1, max_length=MAX_TEXT_CHARS)
]


class StreamOptions(Schema):
    """What a stream tells besides the text."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class OpenAISampling(Sampling):
    """What chat and text completions share."""

    model: ModelId
    stream_options: StreamOptions | None = None
    user: Label | None = Field(default=None, description="without effect")

    @property
    def has_usage_chunk(self) -> bool:
        """Return whether the stream reports its usage in a chunk of its own."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @model_validator(mode="after")
    def _has_a_stream(self) -> "OpenAISampling":
        if self.stream_options is not None and not self.stream:
            raise invalid("stream_options needs `stream: true`", "stream_options")
        return self


class ChatCompletionRequest(OpenAISampling):
    """`POST /v1/chat/completions`, with `retrieval` as our own extension."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "rag/docs",
                    "messages": [{"role": "user", "content": "What does the guide say?"}],
                    "stream": True,
                }
            ]
        }
    )

    messages: Messages
    max_completion_tokens: MaxTokens | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=TOP_LOGPROBS)
    response_format: ResponseFormat | None = None
    retrieval: RetrievalOptions | None = None
    metadata: Annotated[dict[str, Label], Field(max_length=16)] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: Label | None = None
    prompt_cache_key: Label | None = None
    parallel_tool_calls: bool | None = Field(default=None, description="without effect: no tools")
    tool_choice: Literal["none", "auto"] | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = None
    tools: Unsupported = None
    functions: Unsupported = None
    function_call: Unsupported = None
    audio: Unsupported = None
    prediction: Unsupported = None
    reasoning_effort: Unsupported = None
    verbosity: Unsupported = None
    web_search_options: Unsupported = None

    @model_validator(mode="after")
    def _agrees(self) -> "ChatCompletionRequest":
        if self.top_logprobs is not None and not self.logprobs:
            raise invalid("top_logprobs needs `logprobs: true`", "top_logprobs")
        given = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(given) > 1:
            message = "max_tokens and max_completion_tokens differ; give one of them"
            raise invalid(message, "max_tokens")
        return self

    def chat(self) -> tuple[Message, ...]:
        """Return the turns of the chat."""
        return tuple(message.message() for message in self.messages)

    def sampling(self) -> SamplingParams:
        """Return how the answer is sampled."""
        return self.params(
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            grammar=self.response_format.grammar() if self.response_format else None,
            max_tokens=self.max_completion_tokens,
        )


def _kind_of_prompt(value: Any) -> str | None:
    if isinstance(value, str):
        return "text"
    if not isinstance(value, list):
        return None
    first = value[0] if value else None
    if isinstance(first, list):
        return "token_lists"
    return {str: "texts", int: "tokens"}.get(type(first))


Prompt = Annotated[
    Annotated[PromptText, Tag("text")]
    | Annotated[PromptTokens, Tag("tokens")]
    | Annotated[list[PromptText], Field(max_length=MAX_CHOICES), Tag("texts")]
    | Annotated[list[PromptTokens], Field(max_length=MAX_CHOICES), Tag("token_lists")],
    Discriminator(
        _kind_of_prompt,
        custom_error_type="prompt",
        custom_error_message="must be a string, or a list of strings or of tokens",
    ),
]


class CompletionRequest(OpenAISampling):
    """`POST /v1/completions`: the prompt is continued as it is, without a chat template."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "smollm2-135m-instruct", "prompt": "Once upon a time"}]
        }
    )

    prompt: Prompt
    logprobs: int | None = Field(default=None, ge=0, le=5)
    best_of: int | None = Field(default=None, ge=1, le=MAX_CHOICES, description="must equal n")
    echo: Literal[False] | None = None
    suffix: Unsupported = None

    @model_validator(mode="after")
    def _is_bounded(self) -> "CompletionRequest":
        if self.best_of is not None and self.best_of != self.num_choices:
            raise invalid("best_of must equal n", "best_of")
        if len(self.prompts()) * self.num_choices > MAX_CHOICES:
            message = f"prompts × n must not be more than {MAX_CHOICES}"
            raise invalid(message, "n")
        return self

    def prompts(self) -> list[str | list[int]]:
        """Return every prompt, as text or as tokens."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)

    def sampling(self) -> SamplingParams:
        """Return how the text is sampled."""
        return self.params(logprobs=self.logprobs, grammar=None)
