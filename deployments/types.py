"""Messages that cross a boundary: between replicas, and between a replica and its engine or store.

Plain frozen dataclasses, so that they pickle fast and compare by value. Bounds on what a client may
ask are checked where the request enters (``ingress/schemas/``); engines check what only they know.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""float32[n, dim], rows L2-normalised."""

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length"]
GrammarKind = Literal["json_object", "json_schema", "regex"]
SearchMode = Literal["dense", "lexical", "hybrid"]
FilterOperator = Literal[
    "eq",
    "ne",
    "gt",
    "gte",
    "lt",
    "lte",
    "in",
    "not_in",
    "contains",
    "not_contains",
    "starts_with",
    "ends_with",
    "before",
    "after",
    "exists",
    "not_exists",
    "empty",
    "not_empty",
]

# --- generation -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Grammar:
    """What the output must match. `source` is a JSON schema or a regex; empty for `json_object`."""

    kind: GrammarKind
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How the next token is chosen.

    `temperature` 0 is greedy. `top_k` 0, `top_p` 1 and `min_p` 0 are off. `logprobs` is the number
    of alternatives reported per token (0: only the chosen one), None reports nothing.
    `repetition_penalty` covers prompt and output, presence and frequency penalty the output only.
    `max_tokens` None lets the Generator replica take its default, lowered to what the context
    leaves, and `temperature` None its default; an engine reads `heat`.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()
    grammar: Grammar | None = None

    @property
    def heat(self) -> float:
        """Return the temperature, 1 where nobody said one."""
        return 1.0 if self.temperature is None else self.temperature


@dataclass(frozen=True, slots=True)
class Grounding:
    """Passages, best first, and the template that puts them before the last user message.

    `template` has the fields `{passages}` and `{question}`. The replica that owns the tokenizer
    drops passages from the end until prompt and answer fit the model's context.
    """

    template: str
    passages: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One request to a Generator replica: exactly one of `messages`, `prompt`, `prompt_token_ids`.

    With `n` > 1, choice i is sampled with `seed + i` when a seed is given. Where nobody reads along
    (`is_streamed` False) the events cross the handle at once, when the last choice has finished.
    """

    request_id: str
    sampling: SamplingParams
    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    prompt_token_ids: tuple[int, ...] | None = None
    grounding: Grounding | None = None
    n: int = 1
    is_streamed: bool = True


@dataclass(frozen=True, slots=True)
class PromptAccepted:
    """First event of a generation: the prompt fits, and this is what it holds."""

    prompt_tokens: int
    num_passages: int = 0


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token's log-probability under the model's own distribution, before any penalty."""

    token_id: int
    token: bytes
    logprob: float
    top: tuple["TokenLogprob", ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of one choice's output; `text` may be empty while a stop is undecided."""

    text: str
    index: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle as a call: one per token crosses a handle, and this is five times faster."""
        return (Delta, (self.text, self.index, self.logprobs))


@dataclass(frozen=True, slots=True)
class Finished:
    """Last event of one choice; `completion_tokens` counts all sampled tokens, the end included."""

    finish_reason: FinishReason
    completion_tokens: int
    index: int = 0


GenerationEvent = PromptAccepted | Delta | Finished


@dataclass(frozen=True, slots=True)
class ReplyTo:
    """Where a Generator replica sends the events of one streamed request (``delivery/``)."""

    host: str
    port: int
    secret: bytes = field(repr=False)
    subscription: int


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What an engine is doing right now."""

    num_running: int = 0
    num_queued: int = 0
    tokens_per_s: float = 0.0
    kv_cache_usage: float = 0.0


# --- embedding and documents ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece `text[start:end]` that fits the embedding model; offsets in code points."""

    start: int
    end: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class EmbeddedText:
    """The segments of one text and their vectors, float32[len(segments), dim], in order."""

    segments: tuple[Segment, ...]
    vectors: Vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A text to store. `id` is the caller's or a new `doc_…`; `metadata` is a flat JSON object.

    `embedded` are segments and vectors that the caller brings; nobody embeds the text then.
    """

    id: str
    text: str
    title: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    embedded: EmbeddedText | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class IndexedDocument:
    """What became of one document: `status` is created, replaced or unchanged."""

    id: str
    status: Literal["created", "replaced", "unchanged"]
    num_chunks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """One search. `min_score` is a bound on the cosine similarity, whatever the mode.

    `vector` takes the place of `query` in dense mode. `offset` hits are skipped. Hybrid fuses the
    best `candidates` of each kind (None: the replica's default, `top_k` if that is more), whatever
    the offset, with the `weights` of dense and lexical. `max_per_document` bounds the chunks of one
    document. Each hit comes with as many `neighbors` before and after it, and `has_highlights`.
    """

    collection: str
    query: str = ""
    vector: tuple[float, ...] | None = None
    top_k: int = 10
    offset: int = 0
    mode: SearchMode = "hybrid"
    min_score: float | None = None
    filter: "MetadataFilter | None" = None
    weights: tuple[float, float] = (1.0, 1.0)
    candidates: int | None = None
    max_per_document: int | None = None
    neighbors: int = 0
    has_highlights: bool = False
    is_eventual: bool = False


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a document: `text` is `document.text[start:end]`."""

    chunk_id: str
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredChunk:
    """A stored chunk and how well it matches; `text` is `document.text[start:end]`.

    `score` orders the results: cosine in [-1, 1] for dense, BM25 for lexical, reciprocal-rank
    fusion for hybrid; `rerank_score`, in [0, 1], where the results were reranked. `cosine` is given
    whenever a query vector was.
    """

    chunk_id: str
    document_id: str
    title: str
    text: str
    start: int
    end: int
    score: float
    cosine: float | None = None
    rerank_score: float | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    before: tuple[Passage, ...] = ()
    after: tuple[Passage, ...] = ()
    highlights: tuple[tuple[int, int], ...] = ()
    """Spans `text[start:end]` of the query's words, in order, where they were asked for."""


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document as it is stored; a source's span is `document.text[start:end]`."""

    document: Document
    num_chunks: int
    created_at: str
    updated_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionInfo:
    """A collection as the API shows it."""

    name: str
    description: str
    embedding_model: str
    dim: int
    num_documents: int
    num_chunks: int
    sequence: int
    created_at: str


@dataclass(frozen=True, slots=True)
class Relevance:
    """How well each of some texts answers a query: scores in [0, 1], in the texts' order."""

    scores: tuple[float, ...]
    num_tokens: int


# --- metadata filters -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison of one metadata field; `value` is a scalar, a list for `in` and `not_in`."""

    field: str
    operator: FilterOperator
    value: Any = None


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part holds."""

    parts: tuple["MetadataFilter", ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part holds."""

    parts: tuple["MetadataFilter", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: "MetadataFilter"


MetadataFilter = Condition | AllOf | AnyOf | Not

# --- retrieval-augmented answers --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Retrieval:
    """How an answer is grounded; None takes the graph's own default."""

    collection: str
    top_k: int | None = None
    min_score: float | None = None
    filter: MetadataFilter | None = None
    is_reranked: bool = False


@dataclass(frozen=True, slots=True)
class Sources:
    """The chunks an answer rests on, best first. Comes after `PromptAccepted`, before any delta."""

    chunks: tuple[ScoredChunk, ...]


AnswerEvent = GenerationEvent | Sources
