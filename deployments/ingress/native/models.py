"""`/v1/models/load`, `unload`, `switch`, `status`: models that come and go while all runs.

For keys that concern the whole installation. It does not know how a model is brought to run.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.types import Receive, Scope, Send

from deployments.errors import EngineFailed, RagError
from deployments.ingress.access import guarded
from deployments.ingress.errors import error_object
from deployments.ingress.faults import log_fault
from deployments.ingress.openapi import describe
from deployments.ingress.schemas.model_states import (
    AliasInfo,
    ModelInfo,
    ModelsStatus,
    alias_of,
    info_of,
    status_of,
)
from deployments.ingress.schemas.models import LoadModel, SwitchModel, UnloadModel
from deployments.ingress.services import Services, json_response
from deployments.ingress.sse import Heartbeat, block
from deployments.ingress.tenant_graph import TenantGraph
from deployments.types import ModelState

POLL_S = 0.2

States = AsyncGenerator[ModelState, None]


def model_states_router(services: Services) -> APIRouter:
    """Return the routes that change which models run, and that show it."""
    router = guarded(tags=["Models"])
    timeout_s = services.args.request_timeout_s
    errors = (403, 404, 409, 422, 502, 507)
    described = describe(
        "loadModel", LoadModel, ModelInfo, is_stream=True, errors=errors, is_long=True
    )

    @router.post("/v1/models/load", **described)
    async def load(request: Request) -> Response:
        """Load a model; one that is loaded, or loading, stays as it is.

        With 202 it is being loaded: `wait` for it, `stream` how far it is, or ask for the status.
        It answers as `name@version`, and as `name` while no other version was ready before it.
        """
        graph = services.graph_of(request)
        body = await services.read(request, LoadModel)
        state = await graph.load_model(body.order())
        if body.stream:
            return ProgressStream(
                states(graph, state), request.state.request_id, services.args.heartbeat_s, timeout_s
            )
        if body.wait:
            state = _succeeded(await settled(graph, state, timeout_s))
        return _info(state)

    @router.post(
        "/v1/models/unload",
        **describe("unloadModel", UnloadModel, ModelInfo, errors=(404, 409), is_long=True),
    )
    async def unload(request: Request) -> Response:
        """Unload a model once its requests have ended; with 202 it is going."""
        graph = services.graph_of(request)
        body = await services.read(request, UnloadModel)
        if body.force:  # it may take what an alias names
            await services.second_factor.pass_(request)
        state = await graph.unload_model(body.model_id, force=body.force)
        return _info(await settled(graph, state, timeout_s) if body.wait else state)

    @router.post(
        "/v1/models/switch",
        **describe("switchModel", SwitchModel, AliasInfo, errors=errors),
    )
    async def switch(request: Request) -> Response:
        """Point an alias at a version that is ready, for all requests or a share of them.

        Every request ends with the version that it began with. A version that no alias names any
        more is unloaded after `drain_s`; until then a switch back costs nothing.
        """
        graph = services.graph_of(request)
        body = await services.read(request, SwitchModel)
        if body.wait and "@" in body.to:
            state = await graph.model_state(body.to)
            if state.phase != "ready":
                loading = await graph.reload_model(body.to)
                _succeeded(await settled(graph, loading, timeout_s))
        alias = await graph.switch_model(body.order())
        return json_response(alias_of(alias).model_dump())

    @router.get("/v1/models/status", **describe("modelsStatus", None, ModelsStatus))
    async def status(request: Request) -> Response:
        """Return every model with its replicas, every alias, and every machine, as they are now."""
        graph = services.graph_of(request)
        return json_response(status_of(await graph.model_status(timeout_s=timeout_s)).model_dump())

    return router


async def states(graph: TenantGraph, state: ModelState) -> States:
    """Yield a model's states as they change, up to the one in which nothing more happens."""
    yield state
    while state.phase in ("loading", "unloading"):
        await asyncio.sleep(POLL_S)
        known, state = state, await graph.model_state(state.id)
        if state != known:
            yield state


async def settled(graph: TenantGraph, state: ModelState, timeout_s: float) -> ModelState:
    """Return a model's last state, or the one that it has when the time is up."""
    try:
        async with asyncio.timeout(timeout_s), aclosing(states(graph, state)) as changes:
            async for one in changes:
                state = one
    except TimeoutError:
        pass
    return state


def _succeeded(state: ModelState) -> ModelState:
    if state.phase == "failed":
        raise EngineFailed(f"{state.id} could not be loaded: {state.error}")
    return state


def _info(state: ModelState) -> Response:
    status = 202 if state.phase in ("loading", "unloading") else 200
    return json_response(info_of(state).model_dump(), status)


class ProgressStream(Response):
    """`progress` events as a load goes on, then one `done` or `error`."""

    def __init__(
        self, states: States, request_id: str, heartbeat_s: float, timeout_s: float
    ) -> None:
        super().__init__(media_type="text/event-stream", headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self._states = states
        self._request_id = request_id
        self._heartbeat_s = heartbeat_s
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the whole stream; ends with exactly one terminal event."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        heart = Heartbeat(send, self._heartbeat_s)
        try:
            last = await self._pump(heart)
        finally:
            await heart.stop()
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _pump(self, heart: Heartbeat) -> bytes:
        """Send all but the last event; return that."""
        state = None
        try:
            async with asyncio.timeout(self._timeout_s), aclosing(self._states) as changes:
                async for state in changes:
                    await heart.send(block({"type": "progress", "model": _dumped(state)}))
            assert state is not None
            return block({"type": "done", "model": _dumped(_succeeded(state))})
        except TimeoutError:
            return block({"type": "done", "model": _dumped(state) if state else None})
        except RagError as error:
            return self._error(error)
        except Exception as error:  # whatever it is, the stream must end with an error event
            log_fault(error)
            return self._error(RagError())

    def _error(self, error: RagError) -> bytes:
        return block({"type": "error", "error": error_object(error, self._request_id)})


def _dumped(state: ModelState) -> dict[str, Any]:
    return info_of(state).model_dump()
