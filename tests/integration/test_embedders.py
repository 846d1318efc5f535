"""Collections of two embedding models and of two tenants, over real handles and real keys."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.stack import Stack, running

SMALL = "fake/small:v1"
DIMS = {"fake-embedding": 64, SMALL: 24}
TEXTS = {
    "bread": "Golden Crumb sells Nightloaf.",
    "ferry": "The ferry to Skarro costs twelve dollars.",
}


@pytest.fixture(scope="module")
def two() -> Iterator[Stack]:
    with running(Path(__file__).parent / "two_embedders.yaml") as stack:
        yield stack


@pytest.fixture
def api(two: Stack) -> Iterator[httpx.Client]:
    with two.client() as client:
        yield client


def client_of(stack: Stack, tenant: str) -> httpx.Client:
    created = stack.command("keys", "create", f"of {tenant}", "--tenant", tenant)
    assert created.returncode == 0, created.stderr
    headers = {"authorization": f"Bearer {created.stdout.strip()}"}
    return httpx.Client(base_url=stack.url, headers=headers, timeout=60)


def create(client: httpx.Client, name: str, **settings: object) -> dict:
    body = {"name": name, **settings}
    return client.post("/v1/data/collections", json=body).raise_for_status().json()


def index(client: httpx.Client, name: str, *documents: dict) -> dict:
    body = {"collection": name, "documents": documents}
    return client.post("/v1/data/index", json=body).raise_for_status().json()


def texts() -> list[dict]:
    return [{"id": name, "text": text} for name, text in TEXTS.items()]


def search(client: httpx.Client, name: str, query: str, **options: object) -> list[dict]:
    body = {"collection": name, "query": query, **options}
    return client.post("/v1/data/search", json=body).raise_for_status().json()["results"]


@pytest.mark.parametrize("model", DIMS)
def test_each_collection_is_embedded_with_its_model(api: httpx.Client, model: str) -> None:
    name = f"of-{DIMS[model]}"
    assert create(api, name, embedding_model=model)["dim"] == DIMS[model]
    index(api, name, *texts())
    for mode in ("dense", "lexical", "hybrid"):
        for rerank in (False, True):
            found = search(api, name, "ferry to Skarro", mode=mode, rerank=rerank, top_k=1)
            assert found[0]["document_id"] == "ferry"
    body = {"prompt": "What does Golden Crumb sell?", "retrieval": {"collection": name}}
    answer = api.post("/v1/inference", json=body).raise_for_status().json()
    assert "Nightloaf" in answer["output"]
    assert answer["sources"][0]["document_id"] == "bread"
    vector = embedded(api, model, TEXTS["ferry"])
    asked = {"collection": name, "vector": vector, "mode": "dense", "min_score": 0.99}
    found = api.post("/v1/data/search", json=asked).raise_for_status().json()["results"]
    assert [one["document_id"] for one in found] == ["ferry"]


def embedded(client: httpx.Client, model: str, text: str) -> list[float]:
    answer = client.post("/v1/embeddings", json={"model": model, "input": text})
    return answer.raise_for_status().json()["data"][0]["embedding"]


def test_models_vectorize_and_are_listed(api: httpx.Client) -> None:
    ids = [one["id"] for one in api.get("/v1/models").raise_for_status().json()["data"]]
    assert ids[1:3] == list(DIMS)
    for model, dim in DIMS.items():
        body = {"texts": ["one"], "model": model}
        answer = api.post("/v1/data/vectorize", json=body).raise_for_status().json()
        assert (answer["model"], answer["dim"]) == (model, dim)
    page = api.get("/v1/metrics").raise_for_status().text
    assert "ragserve_embedder_replicas 2.0" in page
    assert api.get("/v1/health/ready").json()["parts"]["embedder"] is True


def test_recreated_collection_takes_its_new_model_on_every_replica(api: httpx.Client) -> None:
    for model in (*DIMS, *DIMS):
        create(api, "again", embedding_model=model)
        for number in range(8):  # of which each Ingress replica gets some, and remembers
            index(api, "again", {"id": f"d{number}", "text": f"ferry number {number}"})
            assert len(search(api, "again", "ferry", top_k=20)) == number + 1
        api.delete("/v1/data/collections/again").raise_for_status()
    for number in range(8):  # now it is created by indexing, with the default model
        index(api, "again", {"id": f"d{number}", "text": "ferry"})
    info = api.get("/v1/data/collections/again").raise_for_status().json()
    assert (info["embedding_model"], info["num_documents"]) == ("fake-embedding", 8)


def test_collection_without_a_model_takes_ready_vectors(api: httpx.Client) -> None:
    create(api, "ready", embedding_model=None, dim=3)
    answer = index(
        api,
        "ready",
        {"id": "x", "text": "east ferry", "vector": [2, 0, 0]},
        {"id": "y", "text": "north ferry", "vector": [0, 1, 0]},
        {"id": "bare", "text": "without"},
    )
    assert [one["id"] for one in answer["documents"]] == ["x", "y"]
    assert answer["errors"][0]["id"] == "bare"
    asked = {"collection": "ready", "vector": [0, 5, 0.1], "mode": "dense", "top_k": 1}
    found = api.post("/v1/data/search", json=asked).raise_for_status().json()["results"]
    assert found[0]["document_id"] == "y"
    for rerank in (False, True):
        found = search(api, "ready", "east", mode="lexical", rerank=rerank)
        assert found[0]["document_id"] == "x"
    asked = {"prompt": "east?", "retrieval": {"collection": "ready"}}
    for path, param, body in (
        ("data/search", "collection", {"collection": "ready", "query": "east"}),
        ("data/index", "collection", {"collection": "ready", "documents": [{"text": "without"}]}),
        ("inference", "retrieval.collection", asked),
        ("inference", "model", {"prompt": "east?", "model": "rag/ready"}),
    ):
        refused = api.post(f"/v1/{path}", json=body)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


def test_settings_are_kept_and_changed(api: httpx.Client) -> None:
    create(api, "set", default_metadata={"team": "a"})
    index(api, "set", *texts())
    body = {"default_metadata": {"team": "b"}, "index": {"kind": "flat"}, "description": "new"}
    changed = api.patch("/v1/data/collections/set", json=body).raise_for_status().json()
    shown = api.get("/v1/data/collections/set").raise_for_status().json()
    assert {name: shown[name] for name in changed} == changed
    search(api, "set", "ferry")
    held = api.get("/v1/data/collections/set").json()["index_stats"]
    assert [(one["kind"], one["num_rows"]) for one in held][:1] == [("flat", 2)]
    assert changed["index"] == {"kind": "flat", "storage": "fp32"}
    where = {"field": "team", "op": "=", "value": "b"}
    assert search(api, "set", "ferry", filter=where) == []
    index(api, "set", *texts())
    assert search(api, "set", "ferry", filter=where)
    listed = api.get("/v1/data/documents", params={"collection": "set", "limit": 1}).json()
    assert (listed["data"][0]["id"], listed["has_more"]) == ("bread", True)
    assert listed["data"][0]["metadata"] == {"team": "b"}


def test_commands_list_what_is_stored(two: Stack, api: httpx.Client) -> None:
    create(api, "listed", embedding_model=SMALL)
    index(api, "listed", *texts())
    shown = json.loads(two.command("collections", "--json").stdout)["data"]
    assert [one["dim"] for one in shown if one["name"] == "listed"] == [24]
    assert "listed" in two.command("collections").stdout
    first = two.command("documents", "--collection", "listed", "--limit", "1")
    assert "bread" in first.stdout
    assert "--after bread" in first.stderr
    rest = two.command("documents", "--collection", "listed", "--after", "bread", "--json")
    assert [one["id"] for one in json.loads(rest.stdout)["data"]] == ["ferry"]


def test_tenants_do_not_see_each_other(two: Stack, api: httpx.Client) -> None:
    with client_of(two, "acme") as acme, client_of(two, "beta") as beta:
        for client, text in ((api, "ours"), (acme, "secret of acme")):
            index(client, "shared", {"id": "one", "text": text})
        assert search(acme, "shared", "secret")[0]["text"] == "secret of acme"
        assert search(api, "shared", "ours")[0]["text"] == "ours"
        for ask in (
            ("GET", "/v1/data/collections/{}", {}),
            ("GET", "/v1/data/documents/one?collection={}", {}),
            ("GET", "/dify/health?knowledge_id={}", {}),
            ("GET", "/v1/models/rag/{}", {}),
            ("POST", "/v1/data/search", {"collection": "{}", "query": "secret"}),
            ("DELETE", "/v1/data/collections/{}", {}),
        ):
            foreign, missing = (answer(beta, name, *ask) for name in ("shared", "absent"))
            assert foreign[0] == missing[0] == 404
            assert foreign[1].replace("shared", "absent") == missing[1]
        assert beta.get("/v1/data/collections").json()["data"] == []
        assert [one["name"] for one in acme.get("/v1/data/collections").json()["data"]] == [
            "shared"
        ]
        models = [one["id"] for one in beta.get("/v1/models").json()["data"]]
        assert not [one for one in models if one.startswith("rag/")]
        acme.delete("/v1/data/collections/shared").raise_for_status()
        assert search(api, "shared", "ours")
    shown = two.command("keys", "list", "--json").stdout
    assert '"tenant": "acme"' in shown


def answer(client: httpx.Client, name: str, method: str, path: str, body: dict) -> tuple[int, str]:
    filled = {key: value.format(name) for key, value in body.items()}
    response = client.request(method, path.format(name), json=filled or None)
    return response.status_code, response.text.replace(response.headers["x-request-id"], "")
