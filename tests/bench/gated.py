"""A Serve application of one no-op route, behind the gateway's checks and beside them."""

from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from ray import serve
from ray.serve import Application

from deployments.config import IngressArgs, LimitArgs, Settings
from deployments.ingress.access import guarded
from deployments.ingress.asgi import App, Receive, Scope, Send
from deployments.ingress.auth import ThreadedKeys
from deployments.ingress.gate import Gate
from deployments.ingress.metrics import Metrics
from deployments.stores.audit.log import open_audit
from deployments.stores.keys import open_keys
from deployments.stores.limits.opening import open_limits
from deployments.stores.pepper import edge_secret

PLENTY = 1_000_000_000
OPERATION = "infer"
GATED, UNGATED = "/gated", "/ungated"
ADDRESSES = {"deny": ("203.0.113.0/24",), "routes": {GATED: ("127.0.0.0/8", "::1/128")}}


async def noop(request: Request) -> Response:
    """Read what was sent, answer nothing much."""
    await request.body()
    return Response(b"{}", media_type="application/json")


def app_of(router: APIRouter, path: str) -> FastAPI:
    """Return an application of the no-op route."""
    router.add_api_route(path, noop, methods=["POST"], operation_id=OPERATION)
    app = FastAPI()
    app.include_router(router)
    return app


def gate(settings: Settings) -> Gate:
    """Return the route behind all checks: key, scope, addresses, limits, slots, audit log."""
    metrics = Metrics()
    limits = LimitArgs(requests_per_minute=PLENTY, tokens_per_minute=PLENTY, max_concurrent=PLENTY)
    args = IngressArgs.model_validate(
        {"key_limits": limits, "addresses": ADDRESSES, "max_requests_in_flight": 4096}
    )
    audit = open_audit(settings, args.audit)
    audit.start()
    return Gate(
        app_of(guarded(), GATED),
        ThreadedKeys(open_keys(settings)),
        args,
        metrics,
        audit=audit,
        operation_of=lambda _: OPERATION,
        edge_secret=edge_secret(settings.state_path),
        is_behind_serve=True,
        limits=open_limits(settings, on_fallback=metrics.count_fallback),
    )


@serve.ingress()
class Both:
    """Serves both from one replica, so that they differ in nothing else."""

    def __serve_build_asgi_app__(self) -> App:
        gated, ungated = gate(Settings()), app_of(APIRouter(), UNGATED)

        async def either(scope: Scope, receive: Receive, send: Send) -> None:
            is_gated = scope["type"] == "http" and scope["path"] == GATED
            await (gated if is_gated else ungated)(scope, receive, send)

        return either


def build(args: dict[str, Any]) -> Application:
    """Return the application; Serve passes `args` of the YAML, which are none."""
    assert not args
    return serve.deployment(Both, name="Both").bind()
