"""The Ingress replica: the application, built late inside the process that serves it.

The only module of the ingress that knows Ray. `@serve.ingress()` without an app makes Serve call
`__serve_build_asgi_app__` after the constructor, so the app may hold locks and handles, which do
not pickle. ``graphs/`` turns the class into a deployment and hands in the graph.
"""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast

import ray
from ray import serve
from ray.serve import context
from ray.serve.handle import DeploymentHandle

from deployments.brokers.opening import open_publisher
from deployments.brokers.publisher import Publisher
from deployments.config import IngressArgs, Settings
from deployments.discretion import be_discreet
from deployments.garbage import collect_seldom
from deployments.ingress.asgi import App, Receive, Scope, Send
from deployments.ingress.assembly import Assembly
from deployments.ingress.entry import handle_call, touch
from deployments.ingress.rpc.lifespan import with_rpc
from deployments.ingress.rpc.server import RpcServer
from deployments.ingress.tasks.bell import Bell
from deployments.stores.listeners import announce, withdraw
from deployments.types import (
    AnswerEvent,
    Document,
    GenerationRequest,
    IndexedDocument,
    Retrieval,
    ScoredChunk,
    SearchRequest,
)

METRICS_TIMEOUT_S = 5.0


@serve.ingress()
class Ingress:
    """Serves the HTTP surface of one graph."""

    def __init__(
        self,
        args: IngressArgs,
        graph_factory: Callable[..., Any],
        *graph_args: Any,
        worker: DeploymentHandle[Any] | None = None,
        **handles: Any,
    ) -> None:
        """Compose the application.

        Args:
            args: limits of every request.
            graph_factory: makes the graph.
            graph_args: of the graph.
            worker: does tasks, where there are any.
            handles: of the graph too.
        """
        be_discreet()
        self._args = args
        self._graph = graph_factory(*graph_args, **handles)
        self._parts = Assembly(args, Settings(), self._ring)
        self._bell = None if worker is None else self._hung_bell(worker)

    def __serve_build_asgi_app__(self) -> App:
        """Return the application; Serve calls this once, after the constructor."""
        surface = self._parts.surface(self._graph, metrics_source=self._cluster_metrics)
        apart = _with_calls_apart(surface.gate)
        collect_seldom()
        if not ray.is_initialized():  # Serve's local testing mode: nobody comes over a network
            return apart
        return with_rpc(apart, RpcServer(apart, self._args.rpc), _Seat(Settings().state_path))

    def metrics(self) -> bytes:
        """Return this replica's own counters; the graph adds those of all replicas up."""
        return self._parts.metrics.text()

    def idle_s(self) -> float:
        """Return for how long nobody has waited for this replica's work."""
        return self._parts.metrics.waiting.idle_s()

    async def forget(self) -> None:
        """Remove every answer that is kept: what it rests on may have been erased.

        Raises:
            StoreUnavailable: answers may still be there.
        """
        if self._parts.answers is not None:
            await self._parts.answers.forget()

    async def index(self, collection: str, documents: Sequence[Document]) -> list[IndexedDocument]:
        """Store documents: for callers that hold a handle to the application instead of a URL."""
        _set_calls_apart()
        async with handle_call(self._parts.audit, "index", is_change=True):
            indexed: list[IndexedDocument] = await self._graph.index(
                collection, documents, timeout_s=self._args.request_timeout_s
            )
            touch("collection", collection)
        return indexed

    async def search(self, request: SearchRequest, is_reranked: bool = False) -> list[ScoredChunk]:
        """Return matching chunks, best first, to a caller with a handle."""
        _set_calls_apart()
        async with handle_call(self._parts.audit, "search", is_change=False):
            chunks: list[ScoredChunk] = await self._graph.search(
                request, timeout_s=self._args.request_timeout_s, is_reranked=is_reranked
            )
            touch("collection", request.collection)
        return chunks

    async def answer(
        self, request: GenerationRequest, retrieval: Retrieval
    ) -> AsyncGenerator[AnswerEvent]:
        """Yield the events of an answer from a collection to a caller with a handle."""
        _set_calls_apart()
        events = self._graph.answer(request, retrieval, timeout_s=self._args.request_timeout_s)
        async with handle_call(self._parts.audit, "answer", is_change=False), aclosing(events):
            async for event in events:
                yield event
            touch("collection", retrieval.collection)

    def _hung_bell(self, worker: DeploymentHandle[Any]) -> Bell:
        """Return what tells workers of tasks; it works from now on."""

        async def nudge() -> None:
            await worker.nudge.remote()

        publisher = Publisher(open_publisher()) if Settings().broker_url else None
        has_due = self._parts.webhooks.store.has_due
        tell = publisher.tell if publisher else None
        bell = Bell(self._parts.queue(), nudge, tell, has_due)
        self._ringing = asyncio.get_running_loop().create_task(bell.run())
        return bell

    def _ring(self) -> None:
        if self._bell is not None:
            self._bell.ring()

    async def _cluster_metrics(self) -> bytes:
        page: bytes = await self._graph.metrics(timeout_s=METRICS_TIMEOUT_S)
        return page


class _Seat:
    """Where the edge reads on which port this replica speaks gRPC."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._replica = serve.get_replica_context().replica_id.unique_id

    def take(self, port: int) -> None:
        announce(self._state, self._replica, port)

    def leave(self) -> None:
        withdraw(self._state, self._replica)


def _with_calls_apart(app: App) -> App:
    async def apart(scope: Scope, receive: Receive, send: Send) -> None:
        _set_calls_apart()
        await app(scope, receive, send)

    return apart


def _set_calls_apart() -> None:
    """Have each handle call of the request that is being served get an internal id of its own.

    Source: Serve 2.60 gives a request's calls its own id, and its router finds the calls that wait
    for a replica by that id: of two that wait at once for one deployment, one is never sent, and
    never ends (`RequestRouter._add_pending_request_to_indices`). By the same id Serve cancels what
    a cancelled request has called; `handles.call` does that here, and what outlives its request
    goes on.
    """
    request = context._get_serve_request_context()
    current = cast("ContextVar[Any]", context._serve_request_context)
    current.set(dataclasses.replace(request, _internal_request_id=""))
