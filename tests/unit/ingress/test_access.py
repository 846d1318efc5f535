"""Who may ask what: every operation of the description, by every kind of caller."""

from typing import Any

import httpx
import pytest

from deployments.ingress.access import ANY_KEY, PUBLIC, RULES, guarded
from deployments.ingress.app import build_app
from deployments.types.access import SCOPES
from tests.unit.ingress.conftest import (
    ADMIN_KEY,
    ARGS,
    KEY,
    UNTOUCHED,
    Build,
    FakeFactors,
    FakeKeys,
    extract,
    in_process,
)
from tests.unit.ingress.fake_graph import FakeGraph

VALUES = {
    "name": "docs",
    "document_id": "a",
    "model": "fake-model",
    "erasure_id": f"era_{'0' * 32}",
    "key_id": f"key_{'0' * 32}",
    "tuning_id": f"tun_{'0' * 32}",
    "task_id": f"task_{'0' * 32}",
    "file_id": f"file_{'0' * 32}",
    "batch_id": f"batch_{'0' * 32}",
    "delivery_id": f"whd_{'0' * 32}",
}
Operation = tuple[str, str, str]


def operations() -> list[Operation]:
    """Return the id, method and path of every operation that is described."""
    app = build_app(
        FakeGraph(), FakeKeys(), ARGS, extract=extract, factors=FakeFactors(), replays=UNTOUCHED
    )
    description: dict[str, Any] = app._app._app.openapi()  # type: ignore[attr-defined]
    return [
        (operation["operationId"], method.upper(), path)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]


OPERATIONS = operations()


async def asked(build: Build, operation: Operation, bearer: str | None) -> httpx.Response:
    _, method, path = operation
    async with in_process(build()) as client:
        del client.headers["authorization"]
        headers = {"authorization": f"Bearer {bearer}"} if bearer else {}
        return await client.request(method, path.format(**VALUES), headers=headers)


def test_every_operation_has_a_rule_and_every_rule_an_operation() -> None:
    assert {id_ for id_, _, _ in OPERATIONS} == set(RULES)


def test_route_without_a_rule_keeps_the_application_from_starting() -> None:
    with pytest.raises(RuntimeError, match="newRoute"):

        @guarded().get("/v1/new", operation_id="newRoute")
        async def new() -> None: ...


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one[0])
async def test_operation_asks_for_what_its_rule_says(build: Build, operation: Operation) -> None:
    rule = RULES[operation[0]]
    nobody = await asked(build, operation, None)
    stranger = await asked(build, operation, "rk-unknown")
    if rule is PUBLIC:
        assert 401 not in (nobody.status_code, stranger.status_code)
        return
    refused = 403 if operation[0].startswith("dify") else 401
    assert (nobody.status_code, stranger.status_code) == (refused, refused)
    if rule is ANY_KEY:
        let_in = await asked(build, operation, f"{KEY}-with-")
        assert let_in.status_code != 401
        assert '"forbidden"' not in let_in.text
        return
    others = "+".join(scope for scope in SCOPES if scope != rule)
    lacking = await asked(build, operation, f"{KEY}-with-{others}")
    assert lacking.status_code == 403
    assert str(rule) in lacking.text
    for bearer in (f"{KEY}-with-{rule}", ADMIN_KEY):
        assert (await asked(build, operation, bearer)).status_code not in (401, 403)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one[0])
async def test_description_names_the_scope(build: Build, operation: Operation) -> None:
    async with in_process(build()) as client:
        description = (await client.get("/openapi.json")).json()
    id_, method, path = operation
    described = description["paths"][path][method.lower()]
    rule = RULES[id_]
    assert described.get("x-required-scope") == (rule if isinstance(rule, str) else None)
    assert "403" in described["responses"] or not isinstance(rule, str)
