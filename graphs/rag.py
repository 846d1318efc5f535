"""The retrieval-augmented graph: query → embedding → chunks → prompt → streamed, cited answer.

`RagGraph` is a plain object inside each Ingress replica; the light steps run there. An answer takes
three handle calls.
"""

import asyncio
import hashlib
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, cast

from ray import serve
from ray.serve import Application, Deployment
from ray.serve.handle import DeploymentHandle

from deployments.config import GENERATING, RETRIEVING, WORKED
from deployments.embedder import Embedder
from deployments.errors import RagError
from deployments.generator import Generator
from deployments.ingress.replica import Ingress
from deployments.reranker import Reranker
from deployments.retriever import Retriever
from deployments.stores.buckets import Shard
from deployments.types import (
    AnswerEvent,
    Basis,
    GenerationRequest,
    PromptAccepted,
    Relevance,
    Retrieval,
    Sources,
)
from deployments.worker import Worker
from graphs.answers import Answers
from graphs.args import RagArgs
from graphs.corpus import Corpus
from graphs.embedders import Embedders, embedder_name
from graphs.generations import Generations
from graphs.handles import (
    Deadline,
    call,
    call_all,
    call_every,
    has_peers,
    plainly_pickled,
)
from graphs.metrics import cluster_metrics
from graphs.model_operations import ModelOperations
from graphs.model_status import OwnModel
from graphs.resting import call_awake, check
from graphs.shards import ROUTER, Shards, shard_name

HEALTH_TIMEOUT_S = 5.0


class RagGraph(Corpus, ModelOperations):
    """The capabilities behind the HTTP surface. Contract: ``ingress/graph.py``."""

    def __init__(
        self,
        args: RagArgs,
        generator: DeploymentHandle[Any] | None = None,
        reranker: DeploymentHandle[Any] | None = None,
        embedders: Sequence[DeploymentHandle[Any]] = (),
        retrievers: Sequence[DeploymentHandle[Any]] = (),
    ) -> None:
        """Take the handles that `build` binds.

        Args:
            args: what runs, of what the interfaces need.
            generator: of the one generation model, where an interface generates.
            reranker: where there is one.
            embedders: of the embedding models, the default one and then in their order in `args`;
                none where no interface retrieves.
            retrievers: the shards, in their order; the same.
        """
        configured = (args.embedder, *args.embedders)[: len(embedders)]
        models = [one.model for one in configured]
        handles = [plainly_pickled(handle) for handle in embedders]
        reranking_model = args.reranker.model if args.reranker else None
        Corpus.__init__(
            self,
            Embedders(dict(zip(models, handles, strict=True))),
            Shards(retrievers, args.retriever),
            reranker,
            reranking_model,
            args.ingress.max_wait_s,
        )
        self._args = args
        self._generator = plainly_pickled(generator) if generator else None
        self._answers = Answers(args.answer)
        self._runs = args.model_dump_json(exclude={"ingress", "models"})
        own = [
            OwnModel("embedding", one, handle)
            for one, handle in zip(configured, handles, strict=True)
        ]
        if self._generator is not None:
            own.insert(0, OwnModel("generation", args.generator, self._generator))
        if args.reranker is not None and self._reranker is not None:
            own.append(OwnModel("reranking", args.reranker, self._reranker))
        ModelOperations.__init__(self, own, args.models)
        self._generations = Generations(self._generator, args.generator.model, self.models)
        self._embedders.find = self.models.embedder

    @property
    def generation_models(self) -> Sequence[str]:
        """Return the ids of the generation models that answer, the default one first."""
        own = () if self._generator is None else (self._args.generator.model,)
        return (*own, *self.models.ids("generation"))

    @property
    def embedding_models(self) -> Sequence[str]:
        """Return the ids of the embedding models that answer, the default one first."""
        return (*self._embedders.models, *self.models.ids("embedding"))

    @property
    def reranking_models(self) -> Sequence[str]:
        """Return the ids of what can rerank, the default first."""
        return (*self._reranking.models, *self.models.ids("reranking"))

    async def basis(
        self,
        request: GenerationRequest,
        retrieval: Retrieval | None,
        *,
        is_greedy_only: bool,
        timeout_s: float,
    ) -> Basis | None:
        """Return what the answer to a request depends on besides; raises as the answer would."""
        model, runs = await self._generations.pinned(request.model)
        if is_greedy_only and not self._is_greedy(request, model, retrieval is not None):
            return None
        collection = None
        if retrieval is not None:
            collection = await self.collection(retrieval.collection, timeout_s=timeout_s)
        depends = repr((self._runs, runs, collection)).encode()
        digest = hashlib.blake2b(depends, digest_size=16).hexdigest()
        return Basis(model, digest)

    def _is_greedy(self, request: GenerationRequest, model: str, is_grounded: bool) -> bool:
        """Return whether nothing of an answer is left to chance; where nobody says, much is."""
        heat, own = request.sampling.temperature, self._args.generator
        if heat is None and is_grounded:
            heat = self._args.answer.temperature
        if heat is None and model == own.model:
            heat = own.default_temperature
        return heat == 0 or request.sampling.top_k == 1

    async def rerank(
        self, query: str, texts: Sequence[str], *, model: str | None = None, timeout_s: float
    ) -> Relevance:
        """Return one score in [0, 1] per text, in order; None is the default model."""
        if model is None or model in self._reranking.models:
            return await super().rerank(query, texts, model=model, timeout_s=timeout_s)
        found = await self.models.route(model, "reranking")
        if isinstance(found, str):
            return await super().rerank(query, texts, model=found, timeout_s=timeout_s)
        return await call(found.rerank.remote(query, list(texts)), self._deadline(timeout_s))

    async def maintain(self) -> None:
        """Do what others began and could not finish, and keep models as they should be."""
        if has_peers():
            await asyncio.gather(self._erasing.resume(), self.keep())

    async def follow(self) -> None:
        """Take part in nothing, but know which models there are, until cancelled."""
        if has_peers():
            await self._registrar.follow()

    def generate(
        self, request: GenerationRequest, *, timeout_s: float
    ) -> AsyncGenerator[AnswerEvent]:
        """Yield `PromptAccepted`, then each choice's deltas and `Finished`, interleaved."""
        return self._generations.events(request, self._deadline(timeout_s))

    async def answer(
        self, request: GenerationRequest, retrieval: Retrieval, *, timeout_s: float
    ) -> AsyncGenerator[AnswerEvent]:
        """Answer from a collection: as `generate`, with one `Sources` after `PromptAccepted`.

        With no passage above the least score the model is not asked: the answer says so.
        """
        deadline = self._deadline(timeout_s)
        await self._generations.check(request)
        search = self._search_reranked if retrieval.is_reranked else self._search
        chunks = await search(self._answers.search(request, retrieval), deadline)
        if retrieval.top_k is None:
            chunks = self._answers.relevant(request, chunks)
        if not chunks and request.sampling.grammar is None:
            for event in self._answers.unknown(request):
                yield event
            return
        grounded = self._answers.grounded(request, chunks)
        async with aclosing(self._generations.events(grounded, deadline)) as events:
            async for event in events:
                yield event
                if isinstance(event, PromptAccepted):
                    yield Sources(tuple(chunks[: event.num_passages]))

    async def health(self, *, timeout_s: float) -> dict[str, bool]:
        """Return, for each part the graph needs, whether it answers."""
        deadline = Deadline(min(timeout_s, HEALTH_TIMEOUT_S))
        calls = {}
        if self._generator is not None:
            calls["generator"] = check(self._generator, deadline)
        if self._embedders.models:
            calls["embedder"] = self._embedders.check(deadline)
            calls["retriever"] = self._shards.check(deadline)
        if self._reranker is not None:
            calls["reranker"] = check(self._reranker, deadline)
        answers = await asyncio.gather(*calls.values(), return_exceptions=True)
        return {
            part: not isinstance(answer, RagError)
            for part, answer in zip(calls, answers, strict=True)
        }

    async def metrics(self, *, timeout_s: float) -> bytes:
        """Return the cluster's metrics in Prometheus' text format."""
        deadline = Deadline(timeout_s)
        generator, reranker = self._generator, self._reranker
        return cluster_metrics(
            generators=await call_all(generator, "stats", deadline) if generator else [],
            embedders=await self._embedders.stats(deadline),
            retrievers=await self._shards.ask_all("stats", deadline=deadline),
            rerankers=await call_all(reranker, "stats", deadline) if reranker else [],
            ingresses=await self._counters(deadline),
        )

    async def idle_s(self, *, timeout_s: float) -> float:
        """Return for how long nobody has waited for any ingress; 0: somebody does.

        Raises:
            RagError: not all that run answered in time.
        """
        idle = await call_all(self._peers("Ingress"), "idle_s", Deadline(timeout_s))
        return min(idle, default=math.inf)

    async def _counters(self, deadline: Deadline) -> list[bytes]:
        """Return the counters of every process that answers requests, or does tasks."""
        counters = await call_all(self._peers("Ingress"), "metrics", deadline)
        if self._args.ingress.has_any(WORKED):
            counters += await call_all(self._peers("Worker"), "metrics", deadline)
        return counters

    def _peers(self, deployment: str) -> DeploymentHandle[Any]:
        return serve.get_deployment_handle(deployment, serve.get_replica_context().app_name)

    async def _forget(self, deadline: Deadline) -> None:
        """Have the Generator forget too: an answer that has its passages already ends in time.

        Then every Ingress: those answers are not kept any more either.
        """
        late_s = self._args.ingress.request_timeout_s
        forgetting = [super()._forget(deadline)]
        if self._generator is not None:
            forgetting.append(call_awake(self._generator, "forget", deadline, late_s))
        await asyncio.gather(*forgetting)
        if has_peers():
            await self.forget_loaded(late_s, deadline)
            await call_every(self._peers("Ingress"), "forget", deadline)
            if self._args.ingress.has_any(WORKED):
                await call_awake(self._peers("Worker"), "forget", deadline)


def build(args: RagArgs) -> Application:
    """Compose the application: the parts that its interfaces need.

    How much of each part runs is said in the YAML's `deployments`.
    """
    parts: dict[str, Any] = {}
    if args.ingress.has_any(GENERATING):
        parts["generator"] = _deployment(Generator).bind(args.generator)
    if args.ingress.has_any(RETRIEVING):
        parts["embedders"] = [_deployment(Embedder).bind(args.embedder), *_embedders(args)]
        parts["retrievers"] = [_retriever(args, index) for index in range(args.retriever.shards)]
        if args.reranker is not None:
            parts["reranker"] = _deployment(Reranker).bind(args.reranker)
    worker = None
    if args.ingress.has_any(WORKED):
        worker = _deployment(Worker).bind(args.ingress, RagGraph, args, **parts)
    return _deployment(Ingress).bind(args.ingress, RagGraph, args, worker=worker, **parts)


def _embedders(args: RagArgs) -> list[Application]:
    return [
        _deployment(Embedder).options(name=embedder_name(one.model)).bind(one)
        for one in args.embedders
    ]


def _retriever(args: RagArgs, index: int) -> Application:
    total = args.retriever.shards
    deployment = _deployment(Retriever).options(
        name=shard_name(index, total), request_router_config=ROUTER
    )
    return deployment.bind(args.retriever, Shard(index, total))


def _deployment(replica: type) -> Deployment:
    return cast("Deployment", serve.deployment(replica, name=replica.__name__))
