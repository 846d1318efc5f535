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
class Sources:
    """The chunks an answer rests on, best first. Comes after `PromptAccepted`, before any delta."""

    chunks: tuple[ScoredChunk, ...]


AnswerEvent = GenerationEvent | Sources
