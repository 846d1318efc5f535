"""No route reaches another tenant's collections, or tells that they exist."""

import ast
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.errors import CollectionNotFound
from deployments.ingress.app import build_app
from deployments.ingress.tenant_graph import TenantGraph
from deployments.types import Document, SearchRequest
from tests.unit.ingress.conftest import (
    ARGS,
    UNTOUCHED,
    Build,
    FakeFactors,
    FakeKeys,
    extract,
    in_process,
)
from tests.unit.ingress.fake_graph import FakeGraph

INGRESS = Path(__file__).resolve().parents[3] / "deployments/ingress"

Ask = tuple[str, str, dict[str, Any]]
PARQUET = "application/vnd.apache.parquet"
MESSAGES = [{"role": "user", "content": "ferry"}]


def post(path: str, **body: Any) -> Ask:
    return "POST", path, {"json": body}


def at(method: str, path: str, name: str, **options: Any) -> Ask:
    return method, path, {"params": {"collection": name}, **options}


ASKS: dict[str, Callable[[str], Ask]] = {
    "infer": lambda name: post("/v1/inference", prompt="ferry", retrieval={"collection": name}),
    "index": lambda name: post(
        "/v1/data/index", collection=name, documents=[{"id": "new", "text": "x"}]
    ),
    "search": lambda name: post("/v1/data/search", collection=name, query="ferry"),
    "createCollection": lambda name: post("/v1/data/collections", name=name),
    "listCollections": lambda name: ("GET", "/v1/data/collections", {}),
    "getCollection": lambda name: ("GET", f"/v1/data/collections/{name}", {}),
    "updateCollection": lambda name: (
        "PATCH",
        f"/v1/data/collections/{name}",
        {"json": {"description": "mine"}},
    ),
    "deleteCollection": lambda name: ("DELETE", f"/v1/data/collections/{name}", {}),
    "listDocuments": lambda name: at("GET", "/v1/data/documents", name),
    "getDocument": lambda name: at("GET", "/v1/data/documents/a", name),
    "deleteDocument": lambda name: at("DELETE", "/v1/data/documents/a", name),
    "export": lambda name: ("POST", f"/v1/data/collections/{name}/export", {}),
    "import": lambda name: (
        "POST",
        f"/v1/data/collections/{name}/import",
        {"content": b"PAR1", "headers": {"content-type": PARQUET}},
    ),
    "erase": lambda name: post("/v1/data/delete", collection=name, ids=["a"]),
    "createChatCompletion": lambda name: post(
        "/v1/chat/completions", model=f"rag/{name}", messages=MESSAGES
    ),
    "createCompletion": lambda name: post("/v1/completions", model=f"rag/{name}", prompt="x"),
    "difyRetrieval": lambda name: post("/dify/retrieval", knowledge_id=name, query="ferry"),
    "difyHealth": lambda name: ("GET", "/dify/health", {"params": {"knowledge_id": name}}),
    "listModels": lambda name: ("GET", "/v1/models", {}),
    "retrieveModel": lambda name: ("GET", f"/v1/models/rag/{name}", {}),
}
"""For every operation that a collection has to do with, a request about one."""

WITHOUT_COLLECTION = {
    "loadModel",
    "unloadModel",
    "switchModel",
    "modelsStatus",
    *("listAudit", "verifyAudit"),
    *("enrollTotp", "confirmTotp", "getTotp", "removeTotp"),
    *("createKey", "listKeys", "getKey", "rotateKey", "revokeKey"),
    *("finetuneModel", "listTunings", "getTuning", "cancelTuning", "deleteTuning"),
    *("clean", "vectorize", "createEmbedding", "rerankV1", "rerankV2", "rerank"),
    *("health", "ready", "metrics", "getErasure"),
    *("inferAsync", "inferBatch", "listTasks", "getTask", "followTask"),
    *("cancelTask", "removeTask", "retryTask", "giveFeedback", "listFeedback"),
    *("uploadFile", "listFiles", "getFile", "getFileContent", "deleteFile"),
    *("createBatch", "listBatches", "getBatch", "cancelBatch"),
    *("cancelTask", "removeTask", "retryTask"),
    *("getWebhookSecret", "listWebhookDeliveries", "redeliverWebhook"),
}
REFUSED_FOR_ALL = {"createCollection": 409, "createCompletion": 400}
"""What an existing collection of one's own answers to, where that is no success."""


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1_767_323_045.0)


def documents() -> dict[str, Document]:
    return {"a": Document(id="a", text="the ferry", title="Trips")}


def graph_with(*paths: str) -> FakeGraph:
    graph = FakeGraph()
    graph.stored = {path: documents() for path in paths}
    return graph


async def asked(graph: FakeGraph, ask: Ask, tenant: str | None = "acme") -> httpx.Response:
    app = build_app(
        graph, FakeKeys(), ARGS, extract=extract, factors=FakeFactors(), replays=UNTOUCHED
    )
    method, path, options = ask
    async with in_process(app, tenant) as client:
        return await client.request(method, path, **options)


def seen(response: httpx.Response) -> tuple[int, list[tuple[str, str]], bytes]:
    """Return everything that a caller gets, but for the request's own random name."""
    request_id = response.headers["x-request-id"]
    bare = request_id.removeprefix("req_").encode()
    headers = [(k, v) for k, v in response.headers.multi_items() if k != "x-request-id"]
    return response.status_code, headers, response.content.replace(bare, b"")


async def test_every_operation_is_accounted_for(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"].values()
    operations = {one["operationId"] for methods in paths for one in methods.values()}
    assert operations == ASKS.keys() | WITHOUT_COLLECTION


@pytest.mark.parametrize("operation", ASKS)
@pytest.mark.parametrize("tenant", ["acme", None])
async def test_b9_foreign_collection_answers_like_a_missing_one(
    operation: str, tenant: str | None
) -> None:
    ask = ASKS[operation]("secret")
    own = "acme/own" if tenant else "own"
    foreign = ["beta/secret", "secret" if tenant else "acme/secret"]
    crowded, alone = graph_with(own, *foreign), graph_with(own)
    before = copy.deepcopy(crowded.stored)
    answers = [seen(await asked(graph, ask, tenant)) for graph in (crowded, alone)]
    assert answers[0] == answers[1]
    assert b"beta" not in answers[0][2]
    assert {path: crowded.stored[path] for path in foreign} == {p: before[p] for p in foreign}


@pytest.mark.parametrize("operation", ASKS)
async def test_own_collection_answers_under_its_own_name(operation: str) -> None:
    graph = graph_with("acme/own", "own", "beta/own")
    graph.stored["own"] = graph.stored["beta/own"] = {}
    response = await asked(graph, ASKS[operation]("own"))
    assert response.status_code == REFUSED_FOR_ALL.get(operation, 200), response.text
    assert "acme" not in response.text
    if operation not in {"listCollections", "listModels", "createCollection"}:
        assert graph.stored["own"] == graph.stored["beta/own"] == {}


@pytest.mark.parametrize("name", ["acme/own", "default/own", "../own", "beta/own"])
async def test_a4_paths_are_no_names(name: str) -> None:
    for tenant in ("acme", None):
        graph = graph_with("acme/own", "own", "beta/own")
        for operation in ("search", "index", "infer", "getDocument", "difyHealth", "retrieveModel"):
            response = await asked(graph, ASKS[operation](name), tenant)
            assert response.status_code in {400, 404}, (operation, response.text)
        body = post("/v1/chat/completions", model=f"rag/{name}", messages=MESSAGES)
        assert (await asked(graph, body, tenant)).status_code == 404
        assert graph.searches == []


async def test_graph_of_a_tenant_takes_no_paths() -> None:
    graph = TenantGraph(graph_with("beta/own"), "default")
    with pytest.raises(CollectionNotFound):
        await graph.collection("beta/own", timeout_s=1)
    with pytest.raises(CollectionNotFound):
        await graph.search(SearchRequest(collection="beta/own", query="x"), timeout_s=1)


async def test_created_collection_is_the_tenants(build: Build, graph: FakeGraph) -> None:
    async with in_process(build(), "acme") as client:
        created = await client.post("/v1/data/collections", json={"name": "c"})
        taken = await client.post("/v1/data/collections", json={"name": "c"})
    assert (created.status_code, created.json()["name"]) == (201, "c")
    assert (taken.status_code, taken.json()["error"]["message"]) == (409, "collection c exists")
    assert list(graph.stored) == ["acme/c"]


def test_only_the_services_and_the_replica_hold_the_whole_graph() -> None:
    holders = {
        path.name
        for path in INGRESS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "_graph"
    }
    assert holders == {"services.py", "tenant_graph.py", "replica.py"}
