"""What every route works with, and the two ways to answer a generation."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import orjson
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from deployments.config import TASKS, IngressArgs
from deployments.engines.extraction.document import Extracted
from deployments.errors import StoreUnavailable
from deployments.ingress.auth import Key, KeyAdmin
from deployments.ingress.caching.answer_cache import AnswerCache
from deployments.ingress.caching.use import CacheUse
from deployments.ingress.entry import Audit
from deployments.ingress.generation import (
    Answer,
    Events,
    Target,
    begin,
    collect,
    events_of,
    target_of,
    too_late,
)
from deployments.ingress.graph import Graph
from deployments.ingress.json_body import read_json, validated
from deployments.ingress.key_graph import KeyGraph
from deployments.ingress.metering import Ticket, estimated
from deployments.ingress.metrics import Metrics
from deployments.ingress.proto.media import PROTOBUF, is_sent, is_wanted, read_value
from deployments.ingress.proto.values import message_of
from deployments.ingress.schemas.sampling import RetrievalOptions
from deployments.ingress.second_factor import SecondFactorCheck
from deployments.ingress.sse import Encoder, EventStream
from deployments.ingress.tasks.threaded import Tasks
from deployments.ingress.tenant_graph import TenantGraph
from deployments.ingress.webhooks.desk import WebhookDesk
from deployments.stores.batches.opening import BatchStores
from deployments.stores.feedback import FeedbackStore
from deployments.types import GenerationRequest, Message, SamplingParams, ScoredChunk

Model = TypeVar("Model", bound=BaseModel)
Result = TypeVar("Result")


Extract = Callable[[bytes, str], Awaitable[Extracted]]
"""Turns a file's bytes and name into text; raises UnreadableDocument."""

MetricsSource = Callable[[], Awaitable[bytes]]
"""Returns Prometheus text."""


class ChatBody(Protocol):
    """What the bodies of the chat routes have in common."""

    @property
    def messages(self) -> Sequence[Any] | None:
        """Return the turns; None: there is a prompt in their place."""
        ...

    @property
    def model(self) -> str | None:
        """Return the model id asked for."""
        ...

    @property
    def retrieval(self) -> RetrievalOptions | None:
        """Return how to ground the answer."""
        ...

    @property
    def num_choices(self) -> int:
        """Return how many answers are wanted."""
        ...

    @property
    def stream(self) -> bool | None:
        """Return whether the answer is read as it comes."""
        ...

    @property
    def fallback_models(self) -> tuple[str, ...]:
        """Return the models to ask in turn where the one asked for cannot begin."""
        ...

    def chat(self) -> tuple[Message, ...]:
        """Return the turns of the chat."""
        ...

    def sampling(self) -> SamplingParams:
        """Return how the answer is sampled."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """The graph and its surroundings, as the routes see them: the graph as its caller's tenant."""

    _graph: Graph
    args: IngressArgs
    metrics: Metrics
    extract: Extract
    metrics_source: MetricsSource
    keys: KeyAdmin
    second_factor: SecondFactorCheck
    audit: Audit | None = None
    answers: AnswerCache | None = None
    _tasks: Tasks | None = None
    _batches: BatchStores | None = None
    _feedback: FeedbackStore | None = None
    _webhooks: WebhookDesk | None = None

    @property
    def feedback(self) -> FeedbackStore:
        """Return where feedback is kept; raises StoreUnavailable."""
        if self._feedback is None:
            raise StoreUnavailable("there is nowhere to keep feedback")
        return self._feedback

    @property
    def webhooks(self) -> WebhookDesk:
        """Return who knows of webhooks; raises StoreUnavailable."""
        if self._webhooks is None:
            raise StoreUnavailable("there is nothing that delivers webhooks")
        return self._webhooks

    @property
    def batches(self) -> BatchStores:
        """Return where files and batches are kept; raises StoreUnavailable."""
        if self._batches is None:
            raise StoreUnavailable("there is nowhere to keep files")
        return self._batches

    @property
    def has_tasks(self) -> bool:
        """Return whether work may be put off."""
        return self._tasks is not None and self.args.has_any(TASKS)

    @property
    def tasks(self) -> Tasks:
        """Return where work is put in that outlives its request; raises StoreUnavailable."""
        if self._tasks is None:
            raise StoreUnavailable("there is nowhere to put tasks")
        return self._tasks

    def graph_of(self, request: Request) -> TenantGraph:
        """Return the graph as the request's key sees it."""
        key: Key = request.state.key
        if key.grants.models is None and key.grants.collections is None:
            return TenantGraph(self._graph, key.tenant, self.answers)
        return KeyGraph(self._graph, key.tenant, key.grants, self.answers)

    def cache_use(self, request: Request) -> CacheUse:
        """Return how a request uses kept answers; raises InvalidRequest."""
        ttl_s = self.args.cache.ttl_of(request.scope["route"].path)
        use = request.state.cache_use = CacheUse.of(request.scope, ttl_s)
        return use

    async def maintain(self) -> None:
        """Do the graph's background work until cancelled."""
        await self._graph.maintain()

    async def health(self, *, timeout_s: float) -> dict[str, bool]:
        """Return, for each part the graph needs, whether it answers."""
        return await self._graph.health(timeout_s=timeout_s)

    async def read(self, request: Request, model: type[Model]) -> Model:
        """Return the validated body, JSON or Protobuf; raises InvalidRequest."""
        max_depth = self.args.max_json_depth
        if is_sent(request.scope):
            return validated(await read_value(request, max_depth), model)
        return await read_json(request, model, max_depth)

    async def reserve(
        self,
        request: Request,
        texts: Iterable[str],
        *,
        param: str,
        completion: int = 0,
    ) -> None:
        """Reserve of the limits what a request may cost; raises as `Ticket.reserve`.

        Args:
            request: whose limits.
            texts: go in.
            param: the field that they come from.
            completion: tokens that may come out.
        """
        ticket: Ticket = request.state.ticket
        if ticket.counts_tokens:
            await ticket.reserve(estimated(texts), completion, param=param)

    def count_tokens(self, request: Request, prompt: int, completion: int = 0) -> None:
        """Count what a request did cost."""
        self.metrics.count_tokens(prompt, completion)
        request.state.ticket.measure(prompt + completion)

    def max_completion(self, sampling: SamplingParams, num_choices: int) -> int:
        """Return how many tokens may come out; about, where the request does not say."""
        given = sampling.max_tokens
        return (self.args.assumed_max_tokens if given is None else given) * num_choices

    async def chat(self, request: Request, body: ChatBody) -> tuple[Target, Events]:
        """Return who answers a chat, and the events of the answer; nothing runs yet.

        Raises:
            RateLimited: the key's limits have no room for it now.
            InvalidRequest: they never will.
        """
        graph, use = self.graph_of(request), self.cache_use(request)
        retrieval = body.retrieval.retrieval() if body.retrieval else None
        target = target_of(graph, body.model, retrieval)
        generation = GenerationRequest(
            request_id=request.state.request_id,
            sampling=body.sampling(),
            messages=body.chat(),
            n=body.num_choices,
            is_streamed=bool(body.stream),
            model=target.generator,
            fallbacks=body.fallback_models,
        )
        await self.reserve(
            request,
            (message.content for message in generation.messages or ()),
            param="prompt" if body.messages is None else "messages",
            completion=self.max_completion(generation.sampling, generation.n),
        )
        return target, events_of(graph, target, generation, use, self.args.request_timeout_s)

    async def answer(self, request: Request, events: Events, num_choices: int) -> Answer:
        """Return a whole answer within the deadline."""
        try:
            async with asyncio.timeout(self.args.request_timeout_s), aclosing(events):
                answer = await collect(events, num_choices)
        except TimeoutError:
            raise too_late() from None
        self.count_tokens(request, answer.prompt_tokens, answer.completion_tokens)
        return answer

    async def stream(self, request: Request, events: Events, encoder: Encoder) -> Response:
        """Return a stream that has its first delta already; raises what fails before that."""
        deadline = asyncio.get_running_loop().time() + self.args.request_timeout_s
        events = await begin(events, deadline)
        waited_s = time.perf_counter() - request.state.started
        self.metrics.observe_first_delta(request.scope["route"].path, waited_s)

        def count(prompt: int, completion: int) -> None:
            if encoder.answer.is_whole:
                self.count_tokens(request, prompt, completion)
            else:  # what was reserved counts: nobody has counted the tokens that went out
                self.metrics.count_tokens(prompt, completion)

        return EventStream(
            events,
            encoder,
            heartbeat_s=self.args.heartbeat_s,
            deadline=deadline,
            on_tokens=count,
        )


def json_response(value: Any, status: int = 200) -> Response:
    """Return a JSON response; numpy arrays and dataclasses are written as they are."""
    body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, media_type="application/json")


def response_of(request: Request, value: Any, kind: Any) -> Response:
    """Return a response in the form that is wanted: JSON, or a Protobuf message of a class."""
    if not is_wanted(request.scope):
        return json_response(value)
    return Response(message_of(value, kind).SerializeToString(), media_type=PROTOBUF)


def sources_of(collection: str, chunks: tuple[ScoredChunk, ...]) -> list[dict[str, Any]]:
    """Return the sources of an answer; each one's text is `document.text[start:end]`."""
    return [
        {
            "collection": collection,
            "document_id": chunk.document_id,
            "chunk_id": chunk.chunk_id,
            "title": chunk.title,
            "start": chunk.start,
            "end": chunk.end,
            "score": chunk.score,
            "text": chunk.text,
        }
        for chunk in chunks
    ]
