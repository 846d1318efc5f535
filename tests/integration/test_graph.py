"""The graph over real handles: what is stored is found, cited, and visible on every replica."""

import concurrent.futures

import httpx
import orjson
import pytest

SCRIPTS = "你好世界 · مرحبا بالعالم · שלום עולם · नमस्ते · 👩‍👩‍👧‍👦 e\u0301"


def index(client: httpx.Client, collection: str, **texts: str) -> None:
    documents = [{"id": id, "text": text} for id, text in texts.items()]
    body = {"collection": collection, "documents": documents}
    client.post("/v1/data/index", json=body).raise_for_status()


def search(client: httpx.Client, collection: str, query: str, **options: object) -> list[dict]:
    body = {"collection": collection, "query": query, **options}
    return client.post("/v1/data/search", json=body).raise_for_status().json()["results"]


def test_answer_cites_spans_that_resolve(client: httpx.Client) -> None:
    index(client, "cited", bread="Golden Crumb sells Nightloaf.", tea="Jade Kettle has tea.")
    body = {"prompt": "What does Golden Crumb sell?", "retrieval": {"collection": "cited"}}
    answer = client.post("/v1/inference", json=body).raise_for_status().json()
    assert "Nightloaf" in answer["output"]
    assert answer["sources"][0]["document_id"] == "bread"
    for source in answer["sources"]:
        path = f"/v1/data/documents/{source['document_id']}"
        stored = client.get(path, params={"collection": "cited"}).raise_for_status().json()
        assert stored["text"][source["start"] : source["end"]] == source["text"]


def test_every_collection_is_a_chat_model(client: httpx.Client) -> None:
    index(client, "as-model", one="The ferry costs twelve dollars.")
    assert "rag/as-model" in [model["id"] for model in client.get("/v1/models").json()["data"]]
    messages = [{"role": "user", "content": "How much is the ferry?"}]
    body = {"model": "rag/as-model", "messages": messages}
    answer = client.post("/v1/chat/completions", json=body).raise_for_status().json()
    assert "twelve dollars" in answer["choices"][0]["message"]["content"]
    assert answer["sources"][0]["document_id"] == "one"


def test_scripts_pass_unharmed(client: httpx.Client) -> None:
    index(client, "scripts", all=SCRIPTS)
    found = search(client, "scripts", SCRIPTS)
    assert found[0]["text"] == SCRIPTS
    body = {"model": "fake", "messages": [{"role": "user", "content": SCRIPTS}], "stream": True}
    text = ""
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        for line in response.iter_lines():
            if line.startswith("data: {"):
                choice = orjson.loads(line[6:])["choices"][0]
                text += choice["delta"].get("content", "")
    assert text == f"Echo: {SCRIPTS}"


def test_writes_are_visible_at_once_on_every_replica(client: httpx.Client) -> None:
    index(client, "visible", seed="nothing yet")
    for number in range(10):
        word = f"zebra{number}"
        index(client, "visible", doc=f"the {word} runs")
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            hits = list(
                pool.map(lambda w: search(client, "visible", w, mode="lexical"), [word] * 8)
            )
        assert all(found and word in found[0]["text"] for found in hits)
    client.delete("/v1/data/documents/doc", params={"collection": "visible"}).raise_for_status()
    for _ in range(8):
        assert search(client, "visible", "zebra9", mode="lexical") == []


def test_filters_bound_searches_on_every_replica(client: httpx.Client) -> None:
    documents = [
        {"id": f"d{n}", "text": f"report number {n}", "metadata": {"year": 2000 + n, "tags": ["a"]}}
        for n in range(30)
    ]
    documents[7]["metadata"] = {"year": 1999, "tags": ["a", "b"]}
    body = {"collection": "filtered", "documents": documents}
    client.post("/v1/data/index", json=body).raise_for_status()
    only = {
        "and": [
            {"not": {"field": "year", "op": "≥", "value": 2000}},
            {"or": [{"field": "tags", "op": "contains", "value": "b"}]},
        ]
    }
    for number in range(6):
        mode = ("dense", "lexical", "hybrid")[number % 3]
        found = search(client, "filtered", "report number 3", mode=mode, filter=only, top_k=5)
        assert [one["document_id"] for one in found] == ["d7"]
    documents[7]["metadata"] = {"year": 2007}
    client.post("/v1/data/index", json=body).raise_for_status()
    for _ in range(6):
        assert search(client, "filtered", "report number 3", filter=only) == []


def test_ready_vectors_and_chinese_words_are_found(client: httpx.Client) -> None:
    index(client, "ready", chinese="今天的天气很好，我们去北京清华大学。", other="猫喜欢鱼")
    [found] = search(client, "ready", "清华大学天气", mode="lexical", highlights=True)
    spans = [found["text"][start:end] for start, end in found["highlights"]]
    assert (found["document_id"], spans) == ("chinese", ["天气", "清华大学"])
    vector = search_vector(client, "an axis")
    body = {"collection": "ready", "documents": [{"id": "r", "text": "brought", "vector": vector}]}
    client.post("/v1/data/index", json=body).raise_for_status()
    asked = {"collection": "ready", "vector": vector, "mode": "dense", "min_score": 0.99}
    answer = client.post("/v1/data/search", json=asked).raise_for_status().json()
    assert [one["document_id"] for one in answer["results"]] == ["r"]
    asked["vector"] = vector[1:]
    refused = client.post("/v1/data/search", json=asked)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "vector")


def search_vector(client: httpx.Client, text: str) -> list[float]:
    body = client.post("/v1/data/vectorize", json={"texts": [text]}).raise_for_status().json()
    return body["data"][0]["segments"][0]["vector"]


def test_large_calls_are_stored_in_batches(client: httpx.Client) -> None:
    texts = {f"d{n}": f"document number {n} " * 2000 for n in range(60)}
    index(client, "large", **texts)
    info = client.get("/v1/data/collections/large").json()
    assert info["num_documents"] == 60


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v1/data/search", {"collection": "no-such", "query": "x"}, 404, "collection_not_found"),
        ("/v1/chat/completions", {"model": "rag/no-such"}, 404, "model_not_found"),
        ("/v1/chat/completions", {"model": "no-such"}, 404, "model_not_found"),
        (
            "/v1/chat/completions",
            {"model": "fake", "response_format": {"type": "json_object"}},
            400,
            "invalid_request",
        ),
        ("/v1/chat/completions", {"model": "fake", "max_tokens": 90_000}, 400, None),
    ],
)
def test_replica_errors_keep_their_type(
    client: httpx.Client, path: str, body: dict, status: int, code: str | None
) -> None:
    if "chat" in path:
        body = {"messages": [{"role": "user", "content": "hello"}], **body}
    for stream in (False, True) if "chat" in path else (None,):
        sent = body if stream is None else {**body, "stream": stream}
        response = client.post(path, json=sent)
        assert response.status_code == status, response.text
        error = response.json()["error"]
        assert error["request_id"] == response.headers["x-request-id"]
        assert code is None or error["code"] == code


def test_metrics_are_the_clusters(client: httpx.Client) -> None:
    page = client.get("/v1/metrics").raise_for_status().text
    assert "ragserve_generator_replicas 2.0" in page
    assert "ragserve_retriever_replicas 2.0" in page
    assert 'ragserve_requests_total{method="POST"' in page
