"""Messages that cross a boundary: between replicas, and between a replica and its engine or store.

Plain frozen dataclasses, so that they pickle fast and compare by value. Bounds on what a client may
ask are checked where the request enters (``ingress/schemas/``); engines check what only they know.
"""

from deployments.types.answers import (
    AnswerEvent,
    Retrieval,
    Sources,
)
from deployments.types.filters import (
    AllOf,
    AnyOf,
    Condition,
    FilterOperator,
    MetadataFilter,
    Not,
)
from deployments.types.generation import (
    Delta,
    EngineStats,
    Finished,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    Grammar,
    GrammarKind,
    Grounding,
    Message,
    PromptAccepted,
    ReplyTo,
    Role,
    SamplingParams,
    TokenLogprob,
)
from deployments.types.retrieval import (
    CollectionInfo,
    Document,
    EmbeddedText,
    IndexedDocument,
    Passage,
    Relevance,
    ScoredChunk,
    SearchMode,
    SearchRequest,
    Segment,
    StoredDocument,
    Vectors,
)

__all__ = [
    "AllOf",
    "AnswerEvent",
    "AnyOf",
    "CollectionInfo",
    "Condition",
    "Delta",
    "Document",
    "EmbeddedText",
    "EngineStats",
    "FilterOperator",
    "FinishReason",
    "Finished",
    "GenerationEvent",
    "GenerationRequest",
    "Grammar",
    "GrammarKind",
    "Grounding",
    "IndexedDocument",
    "Message",
    "MetadataFilter",
    "Not",
    "Passage",
    "PromptAccepted",
    "Relevance",
    "ReplyTo",
    "Retrieval",
    "Role",
    "SamplingParams",
    "ScoredChunk",
    "SearchMode",
    "SearchRequest",
    "Segment",
    "Sources",
    "StoredDocument",
    "TokenLogprob",
    "Vectors",
]
