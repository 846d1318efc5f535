"""One answer, from the graph's events: which model, the first delta, the whole.

It does not know any wire format.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from deployments.errors import (
    CollectionNotFound,
    DeadlineExceeded,
    EngineFailed,
    ModelNotFound,
    ModelUnavailable,
    RagError,
)
from deployments.ingress.caching.use import CacheUse
from deployments.ingress.tenant_graph import TenantGraph
from deployments.stores.content import invalid, is_collection_name
from deployments.types import (
    AnswerEvent,
    Delta,
    Finished,
    FinishReason,
    GenerationRequest,
    ModelKind,
    PromptAccepted,
    Retrieval,
    ScoredChunk,
    Sources,
    TokenLogprob,
)

RAG_PREFIX = "rag/"

Events = AsyncGenerator[AnswerEvent, None]


@dataclass(frozen=True, slots=True)
class Target:
    """Who answers: a generation model, on its own or from a collection."""

    model: str
    retrieval: Retrieval | None = None

    @property
    def generator(self) -> str:
        """Return the id of the model that writes; empty for the graph's own."""
        return "" if self.model.startswith(RAG_PREFIX) else self.model


def target_of(graph: TenantGraph, model: str | None, retrieval: Retrieval | None) -> Target:
    """Return who answers for a model id; None is the default model.

    Whether there is a model with an id, the graph says before the first event.

    Raises:
        ModelNotFound: no collection can have the name that the id says.
        InvalidRequest: the model is one collection, and `retrieval` names another.
    """
    if model is None:
        return Target(default_of(graph.generation_models), retrieval)
    if not model.startswith(RAG_PREFIX):
        return Target(model, retrieval)
    collection = model.removeprefix(RAG_PREFIX)
    if not is_collection_name(collection):
        raise unknown_model()
    if retrieval is not None and retrieval.collection != collection:
        message = "the model answers from another collection than `retrieval`"
        raise invalid(message, "retrieval.collection")
    return Target(model, retrieval or Retrieval(collection))


async def version_of(
    graph: TenantGraph, model: str, kind: ModelKind, known: Sequence[str], param: str = "model"
) -> str:
    """Return the very model behind an id; `known` are those that are what they are called.

    Raises:
        ModelNotFound: no model of the kind has this id.
        ModelUnavailable: it does not run now.
    """
    if known and model == known[0]:
        return model
    try:
        return await graph.resolve(model, kind)
    except (ModelNotFound, ModelUnavailable) as error:
        error.param = param
        raise


def default_of(models: Sequence[str]) -> str:
    """Return the first of the models that a caller may ask; raises ModelNotFound: there is none."""
    if not models:
        raise unknown_model()
    return models[0]


def unknown_model(param: str = "model") -> ModelNotFound:
    """Return the error for a model id that nothing has; `param` said it."""
    error = ModelNotFound("no loaded model or collection has this id; see GET /v1/models")
    error.param = param
    return error


async def events_of(
    graph: TenantGraph,
    target: Target,
    request: GenerationRequest,
    use: CacheUse,
    timeout_s: float,
) -> Events:
    """Yield the graph's events; closing the generator ends the work behind it."""
    if target.retrieval is None:
        events = graph.generate(request, timeout_s=timeout_s, use=use)
    else:
        events = graph.answer(request, target.retrieval, timeout_s=timeout_s, use=use)
    try:
        async with aclosing(events) as source:
            async for event in source:
                yield event
    except CollectionNotFound as exc:
        if target.model.startswith(RAG_PREFIX):
            raise unknown_model() from None
        exc.param = "retrieval.collection"
        raise
    except RagError as exc:
        if exc.param == "collection":
            is_model = target.model.startswith(RAG_PREFIX)
            exc.param = "model" if is_model else "retrieval.collection"
        raise


async def begin(events: Events, deadline: float) -> Events:
    """Return the same events once the first delta is there, so that early failures raise here.

    Args:
        events: closed when this raises.
        deadline: on the event loop's clock.
    """
    early: list[AnswerEvent] = []
    try:
        async with asyncio.timeout_at(deadline):
            async for event in events:
                early.append(event)
                if isinstance(event, Delta | Finished):
                    break
    except BaseException as exc:
        await events.aclose()
        if isinstance(exc, TimeoutError):
            raise too_late() from None
        raise
    return _continued(early, events)


async def _continued(early: list[AnswerEvent], events: Events) -> Events:
    async with aclosing(events):
        for event in early:
            yield event
        async for event in events:
            yield event


def too_late() -> DeadlineExceeded:
    """Return the error for a request that did not finish in time."""
    return DeadlineExceeded("the request did not finish before its deadline")


@dataclass(slots=True)
class Choice:
    """One complete output."""

    parts: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    @property
    def text(self) -> str:
        """Return the whole text."""
        return "".join(self.parts)


@dataclass(slots=True)
class Answer:
    """Everything that a generation has told so far; whole when every choice has finished."""

    choices: list[Choice]
    prompt_tokens: int = 0
    completion_tokens: int = 0
    chunks: tuple[ScoredChunk, ...] | None = None
    num_finished: int = 0
    model: str = ""
    """Who answers, where it may be another than was asked for."""

    @classmethod
    def of(cls, num_choices: int) -> "Answer":
        """Return an answer of which nothing is known yet."""
        return cls([Choice() for _ in range(num_choices)])

    @property
    def is_whole(self) -> bool:
        """Return whether every choice has finished."""
        return self.num_finished == len(self.choices)

    def count(self, event: AnswerEvent) -> None:
        """Take note of all but the text of an event."""
        if isinstance(event, Finished):
            self.choices[event.index].finish_reason = event.finish_reason
            self.completion_tokens += event.completion_tokens
            self.num_finished += 1
        elif isinstance(event, PromptAccepted):
            self.prompt_tokens += event.prompt_tokens
            self.model = event.model
        elif isinstance(event, Sources):
            self.chunks = event.chunks

    def named(self, header: dict[str, Any]) -> dict[str, Any]:
        """Return a header that says who answers."""
        return {**header, "model": self.model} if self.model else header

    def check_whole(self) -> None:
        """Raise EngineFailed when the events ended too early."""
        if not self.is_whole:
            raise EngineFailed("the model's replica ended without finishing the answer")


async def collect(events: AsyncIterator[AnswerEvent], num_choices: int) -> Answer:
    """Return the whole answer.

    Raises:
        EngineFailed: the events end before every choice has finished.
    """
    answer = Answer.of(num_choices)
    async for event in events:
        if isinstance(event, Delta):
            choice = answer.choices[event.index]
            choice.parts.append(event.text)
            choice.logprobs.extend(event.logprobs)
        else:
            answer.count(event)
    answer.check_whole()
    return answer
