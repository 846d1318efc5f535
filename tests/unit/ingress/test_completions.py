"""`/v1/completions`."""

import json

import httpx
import openai
import pytest

from deployments.errors import EngineFailed
from tests.unit.ingress.conftest import KEY, Build, Served
from tests.unit.ingress.fake_graph import FakeGraph
from tests.unit.ingress.test_chat import strict_events

ASK = {"model": "fake-model", "prompt": "hi"}


async def complete(client: httpx.AsyncClient, **fields: object) -> httpx.Response:
    return await client.post("/v1/completions", json={**ASK, **fields})


async def test_completion_answers_with_every_field(client: httpx.AsyncClient) -> None:
    body = (await complete(client)).json()
    assert body.pop("id").startswith("cmpl-")
    assert isinstance(body.pop("created"), int)
    choice = {"index": 0, "text": "echo: hi", "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    expected = {"object": "text_completion", "model": "fake-model", "choices": [choice]}
    assert body == {**expected, "usage": usage}


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("a", ["echo: a"]),
        ([1, 2], ["echo: 1 2"]),
        (["a", "b"], ["echo: a", "echo: b"]),
        ([[1], [2, 3]], ["echo: 1", "echo: 2 3"]),
    ],
)
async def test_completion_takes_every_kind_of_prompt(
    client: httpx.AsyncClient, prompt: object, texts: list[str]
) -> None:
    choices = (await complete(client, prompt=prompt)).json()["choices"]
    assert [choice["text"] for choice in choices] == texts


async def test_completion_numbers_choices_over_all_prompts(client: httpx.AsyncClient) -> None:
    body = (await complete(client, prompt=["a", "b"], n=2)).json()
    assert [choice["text"][-1] for choice in body["choices"]] == ["a", "a", "b", "b"]
    assert body["usage"] == {"prompt_tokens": 10, "completion_tokens": 12, "total_tokens": 22}


async def test_completion_legacy_logprobs(client: httpx.AsyncClient) -> None:
    expected = {
        "tokens": ["echo:", " hi"],
        "token_logprobs": [-0.25, -0.25],
        "top_logprobs": [{"t0": -0.5, "t1": -9999.0}] * 2,
        "text_offset": [0, 5],
    }
    whole = (await complete(client, logprobs=2)).json()["choices"][0]["logprobs"]
    assert whole == expected
    response = await complete(client, logprobs=2, stream=True)
    chunks = [json.loads(event) for event in strict_events(response.content)[:2]]
    offsets = [chunk["choices"][0]["logprobs"]["text_offset"] for chunk in chunks]
    assert offsets == [[0], [5]]


async def test_completion_stream_of_several_prompts(client: httpx.AsyncClient) -> None:
    response = await complete(client, prompt=["a", "b"], stream=True)
    *chunks, done = strict_events(response.content)
    assert done == "[DONE]"
    texts = ["", ""]
    for chunk in map(json.loads, chunks):
        texts[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert texts == ["echo: a", "echo: b"]
    assert [chunk for chunk in chunks if '"usage"' in chunk] == [chunks[-1]]


async def test_completion_of_several_prompts_fails_as_one(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    graph.error, graph.error_after = EngineFailed("lost"), 1
    response = await complete(client, prompt=["a", "b", "c"])
    assert response.status_code == 502
    assert graph.num_running == 0


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"echo": True}, "echo"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"prompt": ["a"] * 9, "n": 2}, "n"),
        ({"prompt": ["a"] * 17}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt[1]"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"logprobs": 6}, "logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"messages": []}, "messages"),
        ({"model": None}, "model"),
    ],
)
async def test_completion_refuses_by_name(
    client: httpx.AsyncClient, fields: dict[str, object], param: str
) -> None:
    response = await complete(client, **fields)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param


async def test_completion_accepts_best_of_that_changes_nothing(client: httpx.AsyncClient) -> None:
    assert (await complete(client, best_of=2, n=2)).status_code == 200


async def test_completion_is_not_for_collections(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    graph.stored["docs"] = {}
    response = await complete(client, model="rag/docs")
    assert (response.status_code, response.json()["error"]["param"]) == (400, "model")


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function"}]},
        {"functions": [{"name": "f"}]},
        {"modalities": ["audio"]},
        {"audio": {"voice": "x"}},
        {"reasoning_effort": "high"},
        {"store": True},
        {"tool_choice": "required"},
        {"top_logprobs": 1},
        {"frobnicate": 1},
        {"service_tier": "flex"},
    ],
)
async def test_chat_refuses_by_name(client: httpx.AsyncClient, fields: dict[str, object]) -> None:
    ask = {"model": "fake-model", "messages": [{"role": "user", "content": "x"}], **fields}
    response = await client.post("/v1/chat/completions", json=ask)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"].split("[")[0] == next(iter(fields))


async def test_completion_and_embedding_with_the_openai_client(
    build: Build, served: Served
) -> None:
    async with served(build()) as http:
        client = openai.AsyncOpenAI(api_key=KEY, base_url=f"{http.base_url}/v1", max_retries=0)
        async with client:
            chunks = await client.completions.create(model="fake-model", prompt="a", stream=True)
            assert "".join([c.choices[0].text async for c in chunks]) == "echo: a"
            result = await client.embeddings.create(model="fake-embedder", input=["a", "b"])
            assert len(result.data[1].embedding) == 8
            assert "fake-model" in [model.id async for model in client.models.list()]
