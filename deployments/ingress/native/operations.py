"""What an operator asks: is it alive, is it ready, what has it done."""

import asyncio
import time

from fastapi import APIRouter, Response

from deployments.errors import RagError
from deployments.ingress.access import guarded
from deployments.ingress.openapi import describe, json_of
from deployments.ingress.schemas.responses import Health, Readiness
from deployments.ingress.services import Services, json_response

READINESS_AGE_S = 1.0
READINESS_TIMEOUT_S = 5.0
PROMETHEUS = "text/plain; version=1.0.0; charset=utf-8"


class ReadinessProbe:
    """Asks the graph at most once a second, since anybody may ask this route."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = asyncio.Lock()
        self._asked_at = float("-inf")
        self._parts: dict[str, bool] = {}

    async def parts(self) -> dict[str, bool]:
        """Return, for each part the graph needs, whether it answered a moment ago."""
        async with self._lock:
            if time.monotonic() - self._asked_at > READINESS_AGE_S:
                try:
                    self._parts = await self._services.health(timeout_s=READINESS_TIMEOUT_S)
                except RagError:
                    self._parts = {"graph": False}
                self._asked_at = time.monotonic()
        return self._parts


def operations_router(services: Services) -> APIRouter:
    """Return the routes that say how the service is."""
    router = guarded(tags=["Operations"])
    probe = ReadinessProbe(services)

    @router.get("/v1/health", **describe("health", None, Health))
    async def health() -> Response:
        """Say that this process lives."""
        return json_response({"status": "ok"})

    described = describe("ready", None, Readiness)
    unready = {"description": "A part does not answer", "content": json_of(Readiness)}
    described["responses"][503] = unready

    @router.get("/v1/health/ready", **described)
    async def ready() -> Response:
        """Say whether requests can be answered: 503 when a part is missing."""
        parts = await probe.parts()
        is_ready = all(parts.values())
        content = {"status": "ready" if is_ready else "unready", "parts": parts}
        return json_response(content, 200 if is_ready else 503)

    described = describe("metrics")
    described["responses"][200]["content"] = {PROMETHEUS: {"schema": {"type": "string"}}}

    @router.get("/v1/metrics", **described)
    async def metrics() -> Response:
        """Return metrics in Prometheus' text format."""
        return Response(await services.metrics_source(), headers={"content-type": PROMETHEUS})

    return router
