"""The application behind the ingress, built from a graph; it does not know Ray."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match

from deployments.config import IngressArgs
from deployments.errors import RagError
from deployments.ingress.asgi import App, Scope
from deployments.ingress.auth import KeyAdmin
from deployments.ingress.caching.answer_cache import AnswerCache
from deployments.ingress.direct import Direct, LiteralRoutes
from deployments.ingress.docs import docs_router
from deployments.ingress.entry import Audit, fail
from deployments.ingress.errors import from_http_exception, from_parameters
from deployments.ingress.failure import failure_of
from deployments.ingress.gate import Gate
from deployments.ingress.graph import Graph
from deployments.ingress.idempotency import Idempotency
from deployments.ingress.interfaces import router_factories
from deployments.ingress.metrics import Metrics
from deployments.ingress.openapi import openapi_of
from deployments.ingress.second_factor import Factors, SecondFactorCheck
from deployments.ingress.services import Extract, MetricsSource, Services
from deployments.ingress.tasks.inner import InnerCalls
from deployments.ingress.tasks.threaded import Tasks
from deployments.ingress.webhooks.desk import WebhookDesk
from deployments.stores.batches.opening import BatchStores
from deployments.stores.feedback import FeedbackStore
from deployments.stores.limits.admission import LimitStore
from deployments.stores.replays import Replays

DESCRIPTION = (
    "Self-hosted, retrieval-augmented model serving. Every collection is also a model, "
    "`rag/<collection>`: it answers chats from the collection and names its sources."
)


@dataclass(frozen=True, slots=True)
class Surface:
    """One application: as the network reaches it, and as it is asked from within."""

    gate: App
    calls: InnerCalls
    metrics: Metrics


def build_surface(
    graph: Graph,
    keys: KeyAdmin,
    args: IngressArgs,
    *,
    extract: Extract,
    factors: Factors,
    replays: Replays,
    metrics: Metrics | None = None,
    metrics_source: MetricsSource | None = None,
    audit: Audit | None = None,
    edge_secret: str = "",
    is_behind_serve: bool = False,
    limits: LimitStore | None = None,
    answers: AnswerCache | None = None,
    tasks: Tasks | None = None,
    batches: BatchStores | None = None,
    feedback: FeedbackStore | None = None,
    webhooks: WebhookDesk | None = None,
) -> Surface:
    """Return the application.

    Args:
        graph: every capability behind the routes.
        keys: checks bearer keys, and makes them.
        args: limits of every request.
        extract: turns uploaded files into text.
        replays: keeps answers to requests that happen once.
        factors: keeps the keys' second factors.
        metrics: where this process counts; by default a registry of its own.
        metrics_source: what `GET /v1/metrics` shows; by default this process's own counters.
        audit: where every call is written down; None: nowhere.
        edge_secret: what the edge proves itself with; empty: there is none.
        is_behind_serve: whether Serve names the requests, and echoes their names.
        limits: where it is counted what limits are for; without, what has limits is refused.
        answers: those that need not be computed again; None: all are computed.
        batches: where files and batches are kept; None: they are refused.
        feedback: where it is kept; None: it is refused.
        webhooks: the log of deliveries, and their signer; None: neither is shown.
        tasks: where work is put in that outlives its request; None: such work is refused.
    """
    metrics = metrics or Metrics()
    own = metrics

    async def own_metrics() -> bytes:
        return own.text()

    second_factor = SecondFactorCheck(factors, args.second_factor)
    services = Services(
        graph,
        args,
        metrics,
        extract,
        metrics_source or own_metrics,
        keys,
        second_factor,
        audit,
        answers,
        tasks,
        batches,
        feedback,
        webhooks,
    )
    routers = [router_of(services) for router_of in router_factories(args.interfaces)]
    routes = [route for router in routers for route in router.routes]
    literals = LiteralRoutes(routes)
    app = _application(services, [literals, *routes, *docs_router().routes])
    app.state.idempotency = Idempotency(replays, args.request_timeout_s)
    direct = Direct(app, literals, _refusal)
    metrics.watch(audit)
    name_of = partial(operation_of, routes)
    gate = Gate(
        direct,
        keys,
        args,
        metrics,
        audit=audit,
        operation_of=name_of,
        edge_secret=edge_secret,
        is_behind_serve=is_behind_serve,
        limits=limits,
    )
    calls = InnerCalls(direct, keys, gate.meter, metrics, audit=audit, operation_of=name_of)
    app.state.calls = calls
    return Surface(gate, calls, metrics)


def build_app(graph: Graph, keys: KeyAdmin, args: IngressArgs, **given: Any) -> App:
    """Return the ASGI application of `build_surface`."""
    return build_surface(graph, keys, args, **given).gate


def _application(services: Services, routes: Sequence[BaseRoute]) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        maintenance = asyncio.ensure_future(services.maintain())
        yield
        maintenance.cancel()
        await asyncio.gather(maintenance, return_exceptions=True)
        if services.answers is not None:
            await services.answers.close()
        if services.audit is not None:
            await asyncio.to_thread(services.audit.close)

    app = FastAPI(
        lifespan=lifespan,
        title="ragserve",
        description=DESCRIPTION,
        version="1.0.0",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.router.routes.extend(routes)
    for kind in (RagError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _refused)
    app.openapi = cache(lambda: openapi_of(app))  # type: ignore[method-assign]
    return app


def operation_of(routes: Sequence[BaseRoute], scope: Scope) -> str:
    """Return the id of the operation that a request asks for; empty where it is none."""
    route = scope.get("route")
    if route is None:
        full = (one for one in routes if one.matches(scope)[0] is Match.FULL)
        route = next(full, None)
    return getattr(route, "operation_id", None) or ""


async def _refused(request: Request, exc: Exception) -> Response:
    """Answer as `_refusal`; Starlette raises what nobody expects again, and the gate logs it."""
    return _refusal(exc, request)


def _refusal(exc: Exception, request: Request) -> Response:
    """Return the answer to a request that failed as `exc` says."""
    match exc:
        case HTTPException():
            error = from_http_exception(exc)
        case RequestValidationError():
            error = from_parameters(exc.errors())
        case _:
            error = exc if isinstance(exc, RagError) else RagError()
    fail(error)
    status, headers, body = failure_of(error, request.state.request_id, request.scope)
    response = Response(body, status)
    response.raw_headers.extend(headers)
    if isinstance(exc, HTTPException) and exc.headers and "Allow" in exc.headers:
        response.headers["Allow"] = exc.headers["Allow"]
    return response
