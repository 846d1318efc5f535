"""`/v1/chat/completions`: bytes to the letter, and the real client."""

import json
import re

import httpx
import openai
import pytest

from deployments.errors import ContextTooLong, EngineFailed, Overloaded
from deployments.ingress.json_body import parse
from deployments.types import Condition, Document, Not
from tests.unit.ingress.conftest import KEY, Build, Served, in_process
from tests.unit.ingress.fake_graph import FakeGraph

ASK = {"model": "fake-model", "messages": [{"role": "user", "content": "hi you"}]}


def strict_events(raw: bytes) -> list[str]:
    """Read a stream as Dify's plugin SDK does: one `data: ` line per block, LF only, ASCII."""
    assert raw.isascii()
    assert b"\r" not in raw
    assert raw.endswith(b"\n\n")
    blocks = raw.decode().removesuffix("\n\n").split("\n\n")
    events = []
    for block in blocks:
        assert "\n" not in block
        if not block.startswith(": "):
            assert block.startswith("data: ")
            events.append(block.removeprefix("data: "))
    return events


async def stream(client: httpx.AsyncClient, **fields: object) -> list[str]:
    response = await client.post("/v1/chat/completions", json={**ASK, "stream": True, **fields})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["cache-control"] == "no-store"
    return strict_events(response.content)


async def test_chat_answers_with_every_field(client: httpx.AsyncClient) -> None:
    body = (await client.post("/v1/chat/completions", json=ASK)).json()
    assert body["object"] == "chat.completion"
    assert re.fullmatch(r"chatcmpl-[0-9a-f]{32}", body["id"])
    assert isinstance(body["created"], int)
    assert body["model"] == "fake-model"
    message = {"role": "assistant", "content": "echo: hi you", "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    assert body["choices"] == [choice]
    assert body["usage"] == {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}
    assert "sources" not in body


async def test_chat_stream_bytes(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/chat/completions", json={**ASK, "stream": True})
    first = json.loads(strict_events(response.content)[0])
    head = (
        f'data: {{"id":"{first["id"]}","created":{first["created"]},"model":"fake-model",'
        '"object":"chat.completion.chunk","choices":[{"index":0,"delta":'
    )
    usage = '"usage":{"prompt_tokens":5,"completion_tokens":4,"total_tokens":9}'
    assert response.text == (
        head + '{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}\n\n'
        + head + '{"content":"echo:"},"logprobs":null,"finish_reason":null}]}\n\n'
        + head + '{"content":" hi"},"logprobs":null,"finish_reason":null}]}\n\n'
        + head + '{"content":" you"},"logprobs":null,"finish_reason":null}]}\n\n'
        + head + '{},"logprobs":null,"finish_reason":"stop"}],' + usage + "}\n\n"
        + "data: [DONE]\n\n"
    )  # fmt: skip


async def test_chat_stream_with_usage_chunk_keeps_usage_off_the_others(
    client: httpx.AsyncClient,
) -> None:
    *chunks, usage, done = await stream(client, stream_options={"include_usage": True})
    assert done == "[DONE]"
    assert all("usage" not in json.loads(chunk) for chunk in chunks)
    assert json.loads(usage)["choices"] == []
    assert json.loads(usage)["usage"]["total_tokens"] == 9


async def test_chat_stream_escapes_what_line_readers_break_on(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    text = 'a\u2028b\u2029c\u0085d\ré\n"\\\x00🎉'
    graph.words = [text]
    chunk = json.loads((await stream(client))[1])
    assert chunk["choices"][0]["delta"]["content"] == text


async def test_chat_stream_interleaves_choices_and_puts_usage_on_the_last(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    graph.words = ["a", "b"]
    chunks = [json.loads(event) for event in (await stream(client, n=2))[:-1]]
    for index in range(2):
        own = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == index]
        assert own[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(c["delta"].get("content", "") for c in own) == "ab"
        assert own[-1]["finish_reason"] == "stop"
    assert [chunk for chunk in chunks if "usage" in chunk] == [chunks[-1]]
    assert chunks[-1]["usage"]["completion_tokens"] == 6


async def test_chat_stream_error_is_the_one_terminal_event(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    graph.error, graph.error_after = EngineFailed("the replica was lost"), 1
    *_, last = await stream(client)
    error = json.loads(last)
    assert set(error) == {"error"}
    assert error["error"]["code"] == "engine_failed"
    assert error["error"]["request_id"].startswith("req_")


async def test_chat_stream_hides_an_unexpected_error(
    client: httpx.AsyncClient, graph: FakeGraph, caplog: pytest.LogCaptureFixture
) -> None:
    graph.error, graph.error_after = ValueError("secret prompt"), 1
    *_, last = await stream(client)
    assert json.loads(last)["error"]["code"] == "internal_error"
    assert "ValueError" in caplog.text
    assert "secret" not in caplog.text


async def test_chat_stream_never_ends_bare(client: httpx.AsyncClient, graph: FakeGraph) -> None:
    graph.is_cut = True
    *_, last = await stream(client)
    assert json.loads(last)["error"]["code"] == "engine_failed"


async def test_chat_stream_deadline_is_an_error_event(build: Build, graph: FakeGraph) -> None:
    graph.delay_s = 0.15
    async with in_process(build(request_timeout_s=0.25)) as client:
        *_, last = await stream(client)
    assert json.loads(last)["error"]["code"] == "deadline_exceeded"
    assert graph.num_running == 0


@pytest.mark.parametrize("is_stream", [False, True])
async def test_chat_early_error_has_its_own_status(
    client: httpx.AsyncClient, graph: FakeGraph, is_stream: bool
) -> None:
    graph.error = ContextTooLong("the prompt has 9000 tokens and the context 4096")
    response = await client.post("/v1/chat/completions", json={**ASK, "stream": is_stream})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"


async def test_chat_overload_says_when_to_retry(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    graph.error = Overloaded("full")
    graph.error.retry_after_s = 7
    response = await client.post("/v1/chat/completions", json={**ASK, "stream": True})
    assert (response.status_code, response.headers["retry-after"]) == (503, "7")
    assert response.headers["x-should-retry"] == "true"


async def test_chat_heartbeat_is_a_block_of_its_own(build: Build, graph: FakeGraph) -> None:
    graph.delay_s = 0.12
    async with in_process(build(heartbeat_s=0.05)) as client:
        response = await client.post("/v1/chat/completions", json={**ASK, "stream": True})
    assert b"\n\n: ping\n\n" in response.content
    texts = [json.loads(e) for e in strict_events(response.content)[:-1]]
    deltas = [c["choices"][0]["delta"].get("content", "") for c in texts]
    assert "".join(deltas) == "echo: hi you"


async def test_chat_logprobs_in_both_forms(client: httpx.AsyncClient) -> None:
    asked = {**ASK, "logprobs": True, "top_logprobs": 2}
    body = (await client.post("/v1/chat/completions", json=asked)).json()
    first = body["choices"][0]["logprobs"]["content"][0]
    assert (first["token"], first["logprob"], first["bytes"]) == ("echo:", -0.25, [*b"echo:"])
    assert [top["logprob"] for top in first["top_logprobs"]] == [-0.5, -9999.0]
    chunk = json.loads((await stream(client, logprobs=True, top_logprobs=2))[1])
    assert chunk["choices"][0]["logprobs"]["content"] == [first]


async def test_chat_from_a_collection_names_its_sources(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    text = "Ray Serve is a library."
    graph.stored["docs"] = {"d1": Document(id="d1", text=text, title="Ray")}
    body = (await client.post("/v1/chat/completions", json={**ASK, "model": "rag/docs"})).json()
    assert body["model"] == "rag/docs"
    [source] = body["sources"]
    assert source["text"] == text[source["start"] : source["end"]]
    assert (source["collection"], source["document_id"]) == ("docs", "d1")
    assert (source["chunk_id"], source["title"], source["score"]) == ("d1:0", "Ray", 0.5)
    first, second, *_ = await stream(client, model="rag/docs")
    assert json.loads(first)["sources"] == [source]
    assert "sources" not in json.loads(second)


async def test_chat_retrieval_extension_passes_its_options(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    graph.stored["docs"] = {}
    options = {"collection": "docs", "top_k": 2, "min_score": 0.1}
    options["filter"] = {"not": {"field": "a", "op": "in", "value": [1, 2]}}
    response = await client.post("/v1/chat/completions", json={**ASK, "retrieval": options})
    assert response.json()["sources"] == []
    [retrieval] = graph.retrievals
    assert (retrieval.top_k, retrieval.min_score) == (2, 0.1)
    assert retrieval.filter == Not(Condition("a", "in", (1, 2)))


@pytest.mark.parametrize("model", ["nope", "rag/nope", "rag/", "rag/../x", "fake-embedder"])
@pytest.mark.parametrize("is_stream", [False, True])
async def test_chat_unknown_model_is_404(
    client: httpx.AsyncClient, model: str, is_stream: bool
) -> None:
    asked = {**ASK, "model": model, "stream": is_stream}
    response = await client.post("/v1/chat/completions", json=asked)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"
    assert response.json()["error"]["param"] == "model"


async def test_chat_passes_every_parameter(client: httpx.AsyncClient, graph: FakeGraph) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    asked = {
        **ASK,
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "be"}] * 2},
            {"role": "user", "content": "q"},
        ],
        "max_completion_tokens": 11,
        "temperature": 0,
        "top_p": 0.5,
        "top_k": 7,
        "min_p": 0.1,
        "repetition_penalty": 1.2,
        "presence_penalty": -1,
        "frequency_penalty": 2,
        "stop": ["a", "b"],
        "seed": 42,
        "logit_bias": {"5": -100, "6": 1.5},
        "n": 2,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        "user": "someone",
        "store": False,
        "tools": [],
        "metadata": {"a": "b"},
    }
    assert (await client.post("/v1/chat/completions", json=asked)).status_code == 200
    [request] = graph.requests
    assert [(m.role, m.content) for m in request.messages] == [("system", "bebe"), ("user", "q")]
    assert request.n == 2
    sampling = request.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p) == (11, 0.0, 0.5)
    assert (sampling.top_k, sampling.min_p, sampling.repetition_penalty) == (7, 0.1, 1.2)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (-1.0, 2.0)
    assert (sampling.stop, sampling.seed, sampling.logprobs) == (("a", "b"), 42, None)
    assert sampling.logit_bias == ((5, -100.0), (6, 1.5))
    assert sampling.grammar is not None
    assert sampling.grammar.kind == "json_schema"
    assert parse(sampling.grammar.source.encode(), 32) == schema


async def test_chat_grammar_kinds(client: httpx.AsyncClient, graph: FakeGraph) -> None:
    formats = [{"type": "text"}, {"type": "json_object"}, {"type": "regex", "regex": "a+"}]
    for response_format in formats:
        await client.post("/v1/chat/completions", json={**ASK, "response_format": response_format})
    kinds = [r.sampling.grammar and r.sampling.grammar.kind for r in graph.requests]
    assert kinds == [None, "json_object", "regex"]


async def test_chat_with_the_openai_client(build: Build, served: Served, graph: FakeGraph) -> None:
    async with served(build()) as http:
        client = openai.AsyncOpenAI(api_key=KEY, base_url=f"{http.base_url}/v1", max_retries=0)
        async with client:
            messages = [{"role": "user", "content": "hi"}]
            whole = await client.chat.completions.create(model="fake-model", messages=messages)
            assert whole.choices[0].message.content == "echo: hi"
            chunks = await client.chat.completions.create(
                model="fake-model", messages=messages, stream=True
            )
            texts = [c.choices[0].delta.content or "" async for c in chunks]
            assert "".join(texts) == "echo: hi"
            graph.error, graph.error_after = EngineFailed("lost"), 1
            broken = await client.chat.completions.create(
                model="fake-model", messages=messages, stream=True
            )
            with pytest.raises(openai.APIError, match="lost"):
                async for _ in broken:
                    pass
            graph.error = None
            with pytest.raises(openai.NotFoundError):
                await client.chat.completions.create(model="nope", messages=messages)
