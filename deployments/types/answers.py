"""Retrieval-augmented answers: how one is grounded, and the events it consists of."""

from dataclasses import dataclass

from deployments.types.filters import MetadataFilter
from deployments.types.generation import GenerationEvent
from deployments.types.retrieval import ScoredChunk


@dataclass(frozen=True, slots=True)
class Retrieval:
    """How an answer is grounded; None takes the graph's own default."""

    collection: str
    top_k: int | None = None
    min_score: float | None = None
    filter: MetadataFilter | None = None
    is_reranked: bool = False


@dataclass(frozen=True, slots=True)
class Basis:
    """What an answer depends on besides its request: with the same, a greedy one is the same.

    `model` is the id of the very model that answers, drawn where an alias has several; a request
    that names it is answered by no other. `digest` covers it, the configuration, and the state of
    the collection that is answered from.
    """

    model: str
    digest: str


@dataclass(frozen=True, slots=True)
class Sources:
    """The chunks an answer rests on, best first. Comes after `PromptAccepted`, before any delta."""

    chunks: tuple[ScoredChunk, ...]


AnswerEvent = GenerationEvent | Sources
