"""What the routes answer that generate, for the OpenAPI description; and the models that can."""

from typing import Any, Literal

from pydantic import BaseModel


class Usage(BaseModel):
    """How many tokens a request took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Source(BaseModel):
    """A chunk an answer rests on: `text` is `document.text[start:end]`, in code points."""

    collection: str
    document_id: str
    chunk_id: str
    title: str
    start: int
    end: int
    score: float
    text: str


class Output(BaseModel):
    """One of several choices."""

    index: int
    output: str
    finish_reason: Literal["stop", "length"]
    logprobs: list[dict[str, Any]] | None = None


class Inference(BaseModel):
    """An answer; with `n` > 1, `outputs` holds every choice and `output` the first."""

    id: str
    model: str
    output: str
    finish_reason: Literal["stop", "length"]
    usage: Usage
    sources: list[Source]
    logprobs: list[dict[str, Any]] | None = None
    outputs: list[Output] | None = None


class ChatCompletion(BaseModel):
    """OpenAI's chat completion, with `sources` when it is grounded."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: Usage
    sources: list[Source] | None = None


class Completion(BaseModel):
    """OpenAI's text completion."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: Usage


class Model(BaseModel):
    """Something that can be asked."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(BaseModel):
    """Everything that can be asked."""

    object: Literal["list"]
    data: list[Model]
    has_more: bool
