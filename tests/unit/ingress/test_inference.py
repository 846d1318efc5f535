"""`/v1/inference`, whole and streamed."""

import json

import httpx

from deployments.errors import EngineFailed
from deployments.types import Document
from tests.unit.ingress.fake_graph import FakeGraph
from tests.unit.ingress.test_chat import strict_events

USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}


async def infer(client: httpx.AsyncClient, **fields: object) -> httpx.Response:
    return await client.post("/v1/inference", json={"prompt": "hi", **fields})


async def events(client: httpx.AsyncClient, **fields: object) -> list[dict[str, object]]:
    response = await infer(client, stream=True, **fields)
    assert response.status_code == 200, response.text
    return [json.loads(event) for event in strict_events(response.content)]


async def test_inference_answers_with_every_field(client: httpx.AsyncClient) -> None:
    body = (await infer(client)).json()
    assert body.pop("id").startswith("inf-")
    assert body == {
        "model": "fake-model",
        "output": "echo: hi",
        "finish_reason": "stop",
        "usage": USAGE,
        "sources": [],
    }


async def test_inference_takes_messages_and_another_model(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    messages = [{"role": "system", "content": "be"}, {"role": "user", "content": "you"}]
    response = await infer(client, prompt=None, messages=messages, model="second-model")
    assert response.json()["output"] == "echo: you"
    assert response.json()["model"] == "second-model"
    assert len(graph.requests[0].messages) == 2


async def test_inference_of_several_choices(client: httpx.AsyncClient) -> None:
    body = (await infer(client, n=2, logprobs=1)).json()
    assert [output["index"] for output in body["outputs"]] == [0, 1]
    assert body["output"] == body["outputs"][0]["output"] == "echo: hi"
    assert body["outputs"][1]["logprobs"][0]["token"] == "echo:"
    assert body["usage"]["completion_tokens"] == 6


async def test_inference_from_a_collection(client: httpx.AsyncClient, graph: FakeGraph) -> None:
    graph.stored["docs"] = {"d1": Document(id="d1", text="Ray Serve", title="Ray")}
    body = (await infer(client, retrieval={"collection": "docs"})).json()
    assert body["sources"][0]["document_id"] == "d1"
    assert body["model"] == "fake-model"
    sources, *deltas, done = await events(client, model="rag/docs")
    assert sources == {"type": "sources", "sources": body["sources"]}
    assert "".join(str(delta["text"]) for delta in deltas) == "echo: hi"
    assert done["type"] == "done"
    assert done["model"] == "rag/docs"


async def test_inference_model_and_retrieval_must_agree(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    graph.stored["docs"] = {}
    other = await infer(client, model="rag/docs", retrieval={"collection": "other"})
    assert (other.status_code, other.json()["error"]["param"]) == (400, "retrieval.collection")
    same = await infer(client, model="rag/docs", retrieval={"collection": "docs", "top_k": 4})
    assert same.status_code == 200
    assert graph.retrievals[-1].top_k == 4
    assert graph.retrievals[-1].is_reranked is False
    await infer(client, retrieval={"collection": "docs", "rerank": True})
    assert graph.retrievals[-1].is_reranked is True
    missing = await infer(client, retrieval={"collection": "missing"})
    assert missing.json()["error"]["code"] == "collection_not_found"
    assert missing.json()["error"]["param"] == "retrieval.collection"


async def test_inference_stream(client: httpx.AsyncClient) -> None:
    first, second, done = await events(client)
    assert first == {"type": "delta", "index": 0, "text": "echo:"}
    assert second == {"type": "delta", "index": 0, "text": " hi"}
    assert str(done.pop("id")).startswith("inf-")
    expected = {"type": "done", "model": "fake-model", "finish_reason": "stop", "usage": USAGE}
    assert done == expected


async def test_inference_stream_of_several_choices(client: httpx.AsyncClient) -> None:
    *deltas, done = await events(client, n=2, logprobs=0)
    assert {delta["index"] for delta in deltas} == {0, 1}
    assert deltas[0]["logprobs"][0]["top_logprobs"] == []  # type: ignore[index]
    assert done["finish_reasons"] == ["stop", "stop"]


async def test_inference_stream_error_is_the_one_terminal_event(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    graph.error, graph.error_after = EngineFailed("lost"), 1
    *_, last = await events(client)
    assert last["type"] == "error"
    assert last["error"]["code"] == "engine_failed"  # type: ignore[index]


async def test_inference_format_json(client: httpx.AsyncClient, graph: FakeGraph) -> None:
    assert (await infer(client, format="json")).status_code == 200
    grammar = graph.requests[0].sampling.grammar
    assert grammar is not None
    assert grammar.kind == "json_object"
