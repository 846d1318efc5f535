"""How the next token may be chosen: the parameters that all generation routes share."""

import json
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from deployments.ingress.schemas.base import CollectionName, ModelId, Schema, one_or_many
from deployments.ingress.schemas.filters import Filter
from deployments.stores.content import invalid
from deployments.types import Grammar, Retrieval, SamplingParams

MAX_SCHEMA_CHARS = 65_536
MAX_CHOICES = 16
TOP_LOGPROBS = 20
MIN_TOP_P = 1e-6
"""`top_p` 0 means the likeliest token only; engines want a positive number."""

StopString = Annotated[str, Field(min_length=1, max_length=128)]
StopList = Annotated[list[StopString], Field(max_length=4)]
Stop = Annotated[
    Annotated[StopString, Tag("one")] | Annotated[StopList, Tag("many")],
    Discriminator(one_or_many),
]
TokenId = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,8})$")]
Bias = Annotated[float, Field(ge=-100, le=100)]
MaxTokens = Annotated[int, Field(ge=1, le=1_000_000)]


class TextFormat(Schema):
    """No constraint."""

    type: Literal["text"]

    def grammar(self) -> Grammar | None:
        """Return what the output must match."""
        return None


class JsonObjectFormat(Schema):
    """The output is a JSON object."""

    type: Literal["json_object"]

    def grammar(self) -> Grammar:
        """Return what the output must match."""
        return Grammar("json_object")


class JsonSchema(Schema):
    """A JSON schema with its name; every schema is enforced strictly, whatever `strict` says."""

    name: str = Field(default="schema", pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = Field(default=None, max_length=4096)
    body: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(Schema):
    """The output is JSON that matches a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema

    @model_validator(mode="after")
    def _is_bounded(self) -> "JsonSchemaFormat":
        if len(self.grammar().source) > MAX_SCHEMA_CHARS:
            message = f"the schema is larger than {MAX_SCHEMA_CHARS} characters"
            raise invalid(message, "response_format.json_schema.schema")
        return self

    def grammar(self) -> Grammar:
        """Return what the output must match."""
        source = json.dumps(self.json_schema.body, ensure_ascii=False, separators=(",", ":"))
        return Grammar("json_schema", source)


class RegexFormat(Schema):
    """The output matches a regular expression from its first to its last character."""

    type: Literal["regex"]
    regex: str = Field(min_length=1, max_length=4096)

    def grammar(self) -> Grammar:
        """Return what the output must match."""
        return Grammar("regex", self.regex)


ResponseFormat = Annotated[
    TextFormat | JsonObjectFormat | JsonSchemaFormat | RegexFormat, Field(discriminator="type")
]


class RetrievalOptions(Schema):
    """How the answer is grounded in a collection."""

    collection: CollectionName
    top_k: int | None = Field(default=None, ge=1, le=100)
    min_score: float | None = Field(default=None, ge=-1, le=1, description="least cosine")
    filter: Filter = None
    rerank: bool | None = Field(default=None, description="reorder candidates before the best")

    def retrieval(self) -> Retrieval:
        """Return the graph's form."""
        return Retrieval(
            self.collection, self.top_k, self.min_score, self.filter, bool(self.rerank)
        )


class Sampling(Schema):
    """The parameters of all generation routes; null means the default."""

    max_tokens: MaxTokens | None = Field(default=None, description="null: the server's default")
    temperature: float | None = Field(
        default=None, ge=0, le=2, description="0 is greedy; null: the model's default"
    )
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0, le=1_000_000, description="0 is off")
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, ge=0.1, le=10)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    stop: Stop | None = None
    seed: int | None = Field(default=None, ge=0, le=2**62)
    logit_bias: Annotated[dict[TokenId, Bias], Field(max_length=300)] | None = None
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES, description="number of choices")
    stream: bool | None = None
    fallbacks: Annotated[list[ModelId], Field(min_length=1, max_length=8)] | None = Field(
        default=None,
        description="models to ask in turn when `model` is down, or full, before its first token",
    )

    @property
    def fallback_models(self) -> tuple[str, ...]:
        """Return the models to ask in turn where the one asked for cannot begin."""
        return tuple(self.fallbacks or ())

    @property
    def num_choices(self) -> int:
        """Return how many choices each prompt gets."""
        return self.n or 1

    def params(
        self, *, logprobs: int | None, grammar: Grammar | None, max_tokens: int | None = None
    ) -> SamplingParams:
        """Return the engine's form."""
        stops = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        top_p = 1.0 if self.top_p is None else max(self.top_p, MIN_TOP_P)
        bias = {int(token): value for token, value in (self.logit_bias or {}).items()}
        return SamplingParams(
            max_tokens=self.max_tokens if max_tokens is None else max_tokens,
            temperature=None if self.temperature is None else float(self.temperature),
            top_p=top_p,
            top_k=self.top_k or 0,
            min_p=self.min_p or 0.0,
            repetition_penalty=self.repetition_penalty or 1.0,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            stop=stops,
            seed=self.seed,
            logprobs=logprobs,
            logit_bias=tuple(bias.items()),
            grammar=grammar,
        )
