"""Endpoints that are asked the short way answer as they do through the whole application."""

import re
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Match

from deployments.ingress.asgi import App
from deployments.ingress.direct import Direct, LiteralRoutes
from tests.unit.ingress.conftest import Build, in_process
from tests.unit.ingress.fake_graph import FakeGraph
from tests.unit.ingress.test_access import OPERATIONS, VALUES, Operation

ASK = {"model": "fake-model", "messages": [{"role": "user", "content": "x"}]}
OWN = re.compile(r"(chatcmpl-|req_)[0-9a-f]+|(?<=\"created\":)[0-9]+")
"""What is different in each answer."""

PLAIN = {"infer", "createChatCompletion", "createEmbedding", "rerank", "search", "inferAsync"}


def parts_of(gate: App) -> tuple[Direct, FastAPI, LiteralRoutes]:
    direct = gate._app  # type: ignore[attr-defined]
    assert isinstance(direct, Direct)
    return direct, direct._app, direct._literals


@pytest.mark.parametrize("root", ["", "/models/small"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one[0])
def test_same_route_is_found(build: Build, operation: Operation, root: str) -> None:
    id_, method, path = operation
    _, app, literals = parts_of(build())
    scope: dict[str, Any] = {"type": "http", "method": method, "path": root + path.format(**VALUES)}
    scope |= {"root_path": root, "headers": []}
    match, found = literals.matches(scope)
    others = [route for route in app.routes if route is not literals]
    by_turns = next(one for one in others if one.matches(scope)[0] is Match.FULL)
    assert isinstance(by_turns, APIRoute)
    assert by_turns.operation_id == id_
    assert match is (Match.NONE if "{" in path else Match.FULL)
    if match is Match.FULL:
        assert found["route"] is by_turns


def test_what_reads_the_request_by_itself_is_asked_directly(build: Build) -> None:
    direct, _, literals = parts_of(build())
    asked = {
        route.operation_id for route in literals.routes.values() if id(route) in direct._answers
    }
    assert asked >= PLAIN
    assert "listTasks" not in asked  # FastAPI reads its parameters


async def test_wrong_method_and_unknown_path_are_told(client: httpx.AsyncClient) -> None:
    wrong = await client.put("/v1/embeddings", json={})
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert (await client.get("/v1/nothing")).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        ASK,
        {**ASK, "stream": True},
        {**ASK, "temperature": 9},
        {**ASK, "model": "none"},
        "no object",
    ],
    ids=["answer", "stream", "unsound", "unknown model", "no object"],
)
async def test_answer_is_the_applications(
    build: Build, graph: FakeGraph, body: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = build()
    direct, app, _ = parts_of(gate)
    answers = []
    for way in (direct, app):
        monkeypatch.setattr(gate, "_app", way)
        async with in_process(gate) as client:
            answers.append(await client.post("/v1/chat/completions", json=body))
    first, second = answers
    assert first.status_code == second.status_code
    assert OWN.sub("", first.text) == OWN.sub("", second.text)
    assert first.headers.keys() == second.headers.keys()


async def test_fault_that_nobody_knows_is_told_without_detail(
    client: httpx.AsyncClient, graph: FakeGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(graph, "resolve", broken)
    answer = await client.post("/v1/chat/completions", json=ASK)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "secret" not in answer.text
