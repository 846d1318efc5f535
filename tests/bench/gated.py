"""A Serve application of one no-op route, with the gateway's checks in front of it and without."""

from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from ray import serve
from ray.serve import Application

from deployments.config import IngressArgs, LimitArgs, Settings
from deployments.ingress.access import guarded
from deployments.ingress.asgi import App
from deployments.ingress.auth import ThreadedKeys
from deployments.ingress.gate import Gate
from deployments.ingress.metrics import Metrics
from deployments.stores.audit.log import open_audit
from deployments.stores.keys import open_keys
from deployments.stores.limits.opening import open_limits
from deployments.stores.pepper import edge_secret

PLENTY = 1_000_000_000
OPERATION = "infer"
ADDRESSES = {"deny": ("203.0.113.0/24",), "routes": {"/gated": ("127.0.0.0/8", "::1/128")}}


async def noop(_: Request) -> Response:
    """Answer nothing much."""
    return Response(b"{}", media_type="application/json")


def app_of(router: APIRouter) -> FastAPI:
    """Return an application of the no-op route."""
    router.add_api_route("/noop", noop, methods=["POST"], operation_id=OPERATION)
    app = FastAPI()
    app.include_router(router)
    return app


@serve.ingress()
class Ungated:
    """Serves the route as it is."""

    def __serve_build_asgi_app__(self) -> FastAPI:
        return app_of(APIRouter())


@serve.ingress()
class Gated:
    """Serves the route behind all checks: key, scope, addresses, limits, slots, audit log."""

    def __serve_build_asgi_app__(self) -> App:
        settings, metrics = Settings(), Metrics()
        limits = LimitArgs(
            requests_per_minute=PLENTY, tokens_per_minute=PLENTY, max_concurrent=PLENTY
        )
        args = IngressArgs.model_validate(
            {"key_limits": limits, "addresses": ADDRESSES, "max_requests_in_flight": 4096}
        )
        audit = open_audit(settings, args.audit)
        audit.start()
        return Gate(
            app_of(guarded()),
            ThreadedKeys(open_keys(settings)),
            args,
            metrics,
            audit=audit,
            operation_of=lambda _: OPERATION,
            edge_secret=edge_secret(settings.state_path),
            is_behind_serve=True,
            limits=open_limits(settings, on_fallback=metrics.count_fallback),
        )


def build(args: dict[str, Any]) -> Application:
    """Return one of the two; `args` of the YAML says which."""
    replica = Gated if args["is_gated"] else Ungated
    return serve.deployment(replica, name=replica.__name__).bind()
