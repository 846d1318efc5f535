"""The retrieval-augmented graph: query → embedding → chunks → prompt → streamed, cited answer.

`RagGraph` is a plain object inside each Ingress replica; the light steps run there. An answer takes
three handle calls.
"""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, cast

from ray import serve
from ray.serve import Application, Deployment
from ray.serve.handle import DeploymentHandle

from deployments.delivery.inbox import Inbox
from deployments.embedder import Embedder
from deployments.errors import InvalidRequest, RagError
from deployments.generator import Generator
from deployments.ingress.replica import Ingress
from deployments.reranker import Reranker
from deployments.retriever import Retriever
from deployments.stores.buckets import Shard
from deployments.types import (
    AnswerEvent,
    Delta,
    Finished,
    GenerationEvent,
    GenerationRequest,
    Grounding,
    PromptAccepted,
    Retrieval,
    ScoredChunk,
    SearchRequest,
    Sources,
)
from graphs.args import RagArgs
from graphs.corpus import Corpus
from graphs.embedders import Embedders, embedder_name
from graphs.handles import (
    Deadline,
    call,
    call_all,
    call_every,
    delivered,
    node_address,
    plainly_pickled,
)
from graphs.metrics import cluster_metrics
from graphs.relevance import relevant
from graphs.shards import ROUTER, Shards, shard_name

HEALTH_TIMEOUT_S = 5.0


class RagGraph(Corpus):
    """The capabilities behind the HTTP surface. Contract: ``ingress/graph.py``."""

    def __init__(
        self,
        args: RagArgs,
        generator: DeploymentHandle[Any],
        embedder: DeploymentHandle[Any],
        reranker: DeploymentHandle[Any] | None = None,
        embedders: Sequence[DeploymentHandle[Any]] = (),
        retrievers: Sequence[DeploymentHandle[Any]] = (),
    ) -> None:
        """Take the handles that `build` binds.

        Args:
            args: what runs.
            generator: of the one generation model.
            embedder: of the default embedding model.
            reranker: where there is one.
            embedders: of the further embedding models, in their order in `args`.
            retrievers: the shards, in their order.
        """
        models = [one.model for one in (args.embedder, *args.embedders)]
        handles = [plainly_pickled(handle) for handle in (embedder, *embedders)]
        reranking_model = args.reranker.model if args.reranker else None
        super().__init__(
            Embedders(dict(zip(models, handles, strict=True))),
            Shards(retrievers, args.retriever),
            reranker,
            reranking_model,
        )
        self._args = args
        self._generator = plainly_pickled(generator)
        self._deliver = self._generator.options(method_name="deliver")
        self._complete = self._generator.options(method_name="complete")
        self._inbox = Inbox(node_address())

    @property
    def generation_models(self) -> Sequence[str]:
        """Return the ids of the loaded generation models, the default one first."""
        return (self._args.generator.model,)

    def generate(
        self, request: GenerationRequest, *, timeout_s: float
    ) -> AsyncGenerator[AnswerEvent]:
        """Yield `PromptAccepted`, then each choice's deltas and `Finished`, interleaved."""
        return self._events(request, Deadline(timeout_s))

    async def answer(
        self, request: GenerationRequest, retrieval: Retrieval, *, timeout_s: float
    ) -> AsyncGenerator[AnswerEvent]:
        """Answer from a collection: as `generate`, with one `Sources` after `PromptAccepted`.

        With no passage above the least score the model is not asked: the answer says so.
        """
        deadline = Deadline(timeout_s)
        search = self._search_reranked if retrieval.is_reranked else self._search
        chunks = await search(self._passage_search(request, retrieval), deadline)
        if retrieval.top_k is None:
            chunks = relevant(
                chunks,
                _question(request),
                strong_score=self._args.answer.strong_score,
                relative_score=self._args.answer.relative_score,
            )
        if not chunks and request.sampling.grammar is None:
            for event in self._unknown(request):
                yield event
            return
        async with aclosing(self._events(self._ground(request, chunks), deadline)) as events:
            async for event in events:
                yield event
                if isinstance(event, PromptAccepted):
                    yield Sources(tuple(chunks[: event.num_passages]))

    async def health(self, *, timeout_s: float) -> dict[str, bool]:
        """Return, for each part the graph needs, whether it answers."""
        deadline = Deadline(min(timeout_s, HEALTH_TIMEOUT_S))
        calls = {
            "generator": call(self._generator.stats.remote(), deadline),
            "embedder": self._embedders.check(deadline),
            "retriever": self._shards.check(deadline),
        }
        if self._reranker is not None:
            calls["reranker"] = call(self._reranker.stats.remote(), deadline)
        answers = await asyncio.gather(*calls.values(), return_exceptions=True)
        return {
            part: not isinstance(answer, RagError)
            for part, answer in zip(calls, answers, strict=True)
        }

    async def metrics(self, *, timeout_s: float) -> bytes:
        """Return the cluster's metrics in Prometheus' text format."""
        deadline = Deadline(timeout_s)
        ingress = serve.get_deployment_handle("Ingress", serve.get_replica_context().app_name)
        reranker = self._reranker
        return cluster_metrics(
            generators=await call_all(self._generator, "stats", deadline),
            embedders=await self._embedders.stats(deadline),
            retrievers=await self._shards.ask_all("stats", deadline=deadline),
            rerankers=await call_all(reranker, "stats", deadline) if reranker else [],
            ingresses=await call_all(ingress, "metrics", deadline),
        )

    async def _forget(self, deadline: Deadline) -> None:
        """Have the Generator forget too: an answer that has its passages already ends in time."""
        late_s = self._args.ingress.request_timeout_s
        await asyncio.gather(
            super()._forget(deadline), call_every(self._generator, "forget", deadline, late_s)
        )

    async def _events(
        self, request: GenerationRequest, deadline: Deadline
    ) -> AsyncGenerator[GenerationEvent]:
        """Yield a generation's events: as they come, or at its end where nobody reads along."""
        if not request.is_streamed:
            for event in await call(self._complete.remote(request), deadline):
                yield event
            return
        subscription = await self._inbox.open()
        try:
            response = self._deliver.remote(request, subscription.reply_to)
            async with aclosing(delivered(response, subscription, request.n, deadline)) as events:
                async for event in events:
                    yield event
        finally:
            self._inbox.close(subscription)

    def _passage_search(self, request: GenerationRequest, retrieval: Retrieval) -> SearchRequest:
        defaults = self._args.answer
        return SearchRequest(
            collection=retrieval.collection,
            query=_question(request),
            top_k=defaults.top_k if retrieval.top_k is None else retrieval.top_k,
            mode=defaults.mode,
            min_score=defaults.min_score if retrieval.min_score is None else retrieval.min_score,
            filter=retrieval.filter,
        )

    def _ground(self, request: GenerationRequest, chunks: list[ScoredChunk]) -> GenerationRequest:
        grounding = Grounding(self._args.answer.template, tuple(chunk.text for chunk in chunks))
        sampling = request.sampling
        if sampling.temperature is None:
            sampling = dataclasses.replace(sampling, temperature=self._args.answer.temperature)
        return dataclasses.replace(request, grounding=grounding, sampling=sampling)

    def _unknown(self, request: GenerationRequest) -> list[AnswerEvent]:
        events: list[AnswerEvent] = [PromptAccepted(prompt_tokens=0), Sources(())]
        for index in range(request.n):
            events += [Delta(self._args.answer.unknown, index), Finished("stop", 0, index)]
        return events


def _question(request: GenerationRequest) -> str:
    if request.prompt is not None:
        return request.prompt
    questions = [message.content for message in request.messages if message.role == "user"]
    if not questions or not questions[-1].strip():
        raise InvalidRequest("an answer from a collection needs a question in a user message")
    return questions[-1]


def build(args: RagArgs) -> Application:
    """Compose the application; how much of each part runs is said in the YAML's `deployments`."""
    optional = {}
    if args.reranker is not None:
        optional["reranker"] = _deployment(Reranker).bind(args.reranker)
    embedders = [
        _deployment(Embedder).options(name=embedder_name(one.model)).bind(one)
        for one in args.embedders
    ]
    return _deployment(Ingress).bind(
        args.ingress,
        RagGraph,
        args,
        generator=_deployment(Generator).bind(args.generator),
        embedder=_deployment(Embedder).bind(args.embedder),
        embedders=embedders,
        retrievers=[_retriever(args, index) for index in range(args.retriever.shards)],
        **optional,
    )


def _retriever(args: RagArgs, index: int) -> Application:
    total = args.retriever.shards
    deployment = _deployment(Retriever).options(
        name=shard_name(index, total), request_router_config=ROUTER
    )
    return deployment.bind(args.retriever, Shard(index, total))


def _deployment(replica: type) -> Deployment:
    return cast("Deployment", serve.deployment(replica, name=replica.__name__))
