"""Routes found by their path are those that would be found one after the other."""

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Match

from deployments.ingress.asgi import App
from deployments.ingress.literal_routes import LiteralRoutes
from tests.unit.ingress.conftest import Build
from tests.unit.ingress.test_access import OPERATIONS, VALUES, Operation


def app_of(gate: App) -> FastAPI:
    app = gate._app  # type: ignore[attr-defined]
    assert isinstance(app, FastAPI)
    return app


@pytest.mark.parametrize("root", ["", "/models/small"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one[0])
def test_same_route_is_found(build: Build, operation: Operation, root: str) -> None:
    id_, method, path = operation
    routes = app_of(build()).routes
    (index,) = [route for route in routes if isinstance(route, LiteralRoutes)]
    scope = {"type": "http", "method": method, "path": root + path.format(**VALUES)}
    scope |= {"root_path": root, "headers": []}
    match, found = index.matches(scope)
    apart = [route for route in routes if route is not index]
    by_turns = next(one for one in apart if one.matches(scope)[0] is Match.FULL)
    assert isinstance(by_turns, APIRoute)
    assert by_turns.operation_id == id_
    assert match is (Match.NONE if "{" in path else Match.FULL)
    if match is Match.FULL:
        assert found["route"] is by_turns


async def test_wrong_method_and_unknown_path_are_told_as_before(client: httpx.AsyncClient) -> None:
    wrong = await client.put("/v1/embeddings", json={})
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert (await client.get("/v1/nothing")).status_code == 404
