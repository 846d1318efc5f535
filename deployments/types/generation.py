"""Messages of a generation: what is asked of a Generator, and the events it answers with."""

from dataclasses import dataclass, field
from typing import Literal

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length"]
GrammarKind = Literal["json_object", "json_schema", "regex"]


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


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter over a replica's model: read from `location` where `id` is not known yet.

    An id never means two adapters, nor one that was unloaded in between.
    """

    id: str
    location: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One request to a Generator replica: exactly one of `messages`, `prompt`, `prompt_token_ids`.

    With `n` > 1, choice i is sampled with `seed + i` when a seed is given. Where nobody reads along
    (`is_streamed` False) the events cross the handle at once, when the last choice has finished.
    `model` is for the graph: empty means the configuration's own. So are `fallbacks`, the models to
    ask in turn where one cannot begin. `adapter` is the graph's word to the replica.
    """

    request_id: str
    sampling: SamplingParams
    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    prompt_token_ids: tuple[int, ...] | None = None
    grounding: Grounding | None = None
    n: int = 1
    is_streamed: bool = True
    model: str = ""
    fallbacks: tuple[str, ...] = ()
    adapter: Adapter | None = None


@dataclass(frozen=True, slots=True)
class PromptAccepted:
    """First event of a generation: the prompt fits, and this is what it holds.

    `model` is who answers, where it may be another than was asked for; a replica does not say.
    """

    prompt_tokens: int
    num_passages: int = 0
    model: str = ""


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
    """What an engine is doing right now.

    `kv_cache_usage` is the share of the KV cache that requests hold; what is only kept for later
    prompts does not count.
    """

    num_running: int = 0
    num_queued: int = 0
    tokens_per_s: float = 0.0
    kv_cache_usage: float = 0.0
