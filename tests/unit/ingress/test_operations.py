"""Health, readiness, documentation, and the whole surface under generated requests."""

import re
from tempfile import mkdtemp

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings, strategies
from schemathesis.generation import GenerationMode

from deployments.errors import EngineFailed
from deployments.ingress.app import build_app
from deployments.ingress.openapi import BODIES
from deployments.ingress.tasks.threaded import ThreadedTasks
from deployments.ingress.webhooks.desk import WebhookDesk
from deployments.ingress.webhooks.signing import Signer
from deployments.stores.batches.opening import open_batches
from deployments.stores.database import Database
from deployments.stores.feedback import FeedbackStore
from deployments.stores.grouping import GroupedWrites
from deployments.stores.migrations import migrate
from deployments.stores.tasks.store import TaskStore
from deployments.stores.webhooks import WebhookStore
from deployments.types import Document
from tests.unit.ingress.conftest import (
    ARGS,
    AUTH,
    OPERATOR,
    UNTOUCHED,
    Build,
    FakeFactors,
    FakeKeys,
    extract,
    in_process,
)
from tests.unit.ingress.fake_graph import FakeGraph


async def test_health_needs_no_graph(client: httpx.AsyncClient, graph: FakeGraph) -> None:
    graph.error = EngineFailed("lost")
    assert (await client.get("/v1/health")).json() == {"status": "ok"}


async def test_ready_tells_each_part(build: Build, graph: FakeGraph) -> None:
    async with in_process(build()) as client:
        ready = await client.get("/v1/health/ready")
    assert ready.json() == {"status": "ready", "parts": {"generator": True, "retriever": True}}
    graph.parts = {"generator": False, "retriever": True}
    async with in_process(build()) as client:
        unready = await client.get("/v1/health/ready")
    assert (unready.status_code, unready.json()["status"]) == (503, "unready")
    graph.error = EngineFailed("lost")
    async with in_process(build()) as client:
        assert (await client.get("/v1/health/ready")).status_code == 503


async def test_ready_asks_the_graph_rarely(client: httpx.AsyncClient, graph: FakeGraph) -> None:
    await client.get("/v1/health/ready")
    graph.parts = {"generator": False}
    assert (await client.get("/v1/health/ready")).status_code == 200


async def test_metrics_come_from_the_given_source(graph: FakeGraph) -> None:
    async def source() -> bytes:
        return b"cluster_metric 1\n"

    app = build_app(
        graph,
        FakeKeys(),
        ARGS,
        extract=extract,
        factors=FakeFactors(),
        replays=UNTOUCHED,
        metrics_source=source,
    )
    async with in_process(app) as client:
        assert (await client.get("/v1/metrics", headers=OPERATOR)).text == "cluster_metric 1\n"


async def test_docs_bring_every_asset_and_allow_no_other(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(assets) == 4
    for asset in assets:
        response = await client.get(f"/{asset}")
        assert response.status_code == 200
        assert len(response.content) > 100
    assert "<script>" not in page.text
    for path in ("/docs/nope", "/docs/..%2f..%2fapp.py", "/docs/__init__.py"):
        assert (await client.get(path)).status_code == 404


async def test_openapi_describes_every_route(client: httpx.AsyncClient) -> None:
    description = (await client.get("/openapi.json")).json()
    operations = {
        f"{method.upper()} {path}": operation
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    }
    assert len(operations) == 72
    ids = [operation["operationId"] for operation in operations.values()]
    assert len(set(ids)) == len(ids)
    assert all(operation["summary"] for operation in operations.values())
    chat = operations["POST /v1/chat/completions"]
    assert {"200", "400", "401", "403", "404", "413", "429", "500", "502", "503", "504"} == set(
        chat["responses"]
    )
    assert "text/event-stream" in chat["responses"]["200"]["content"]
    assert description["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert operations["GET /v1/health"]["security"] == []
    assert "422" not in operations["GET /v1/models/{model}"]["responses"]
    references = set(re.findall(r"#/components/schemas/([A-Za-z_]+)", str(description)))
    assert references <= set(description["components"]["schemas"])
    bodies = [o["requestBody"] for o in operations.values() if "requestBody" in o]
    assert len(bodies) == 29


def _described_app() -> object:
    graph = FakeGraph()
    graph.stored["docs"] = {"d1": Document(id="d1", text="Ray Serve", title="Ray")}
    url = f"sqlite:///{mkdtemp(prefix='rs-')}/ragserve.db"
    migrate(url)
    database = Database(url)
    tasks = TaskStore(database, GroupedWrites(database, "tasks"))
    return build_app(
        graph,
        FakeKeys(),
        ARGS,
        extract=extract,
        factors=FakeFactors(),
        replays=UNTOUCHED,
        tasks=ThreadedTasks(tasks, ARGS.tasks.max_waiting),
        batches=open_batches(database, tasks),
        feedback=FeedbackStore(database),
        webhooks=WebhookDesk(WebhookStore(database), Signer(bytes(32))),
    )


schemathesis.serializer.alias("application/vnd.apache.parquet", "application/octet-stream")
schemathesis.serializer.alias("application/x-protobuf", "application/octet-stream")
SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", _described_app())
OPERATIONS = {found.label: found for found in (one.ok() for one in SCHEMA.get_all_operations())}


@pytest.mark.parametrize("label", OPERATIONS)
def test_surface_keeps_its_promises(label: str) -> None:
    """Hold sound requests, and ones that are not, against the description.

    Not by Schemathesis' own parametrization: its items share one id, by which xdist drops them.
    """
    checks, operation = schemathesis.checks, OPERATIONS[label]
    modes = [operation.as_strategy(generation_mode=mode) for mode in GenerationMode]

    @settings(
        max_examples=16,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategies.one_of(modes))
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(
            headers=AUTH,
            checks=[
                checks.not_a_server_error,
                checks.CHECKS.get_one("status_code_conformance"),
                checks.CHECKS.get_one("content_type_conformance"),
                checks.CHECKS.get_one("response_schema_conformance"),
            ],
        )

    check()


def test_openapi_examples_are_valid_requests() -> None:
    for body in BODIES:
        for example in body.model_json_schema()["examples"]:
            assert body.model_validate(example)
