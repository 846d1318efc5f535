"""Batches over HTTP, through OpenAI's own client."""

from typing import Any

import openai
import pytest

from deployments.stores.key_rows import Grants
from deployments.types import Document
from tests.unit.ingress.conftest import until
from tests.unit.ingress.fake_graph import FakeGraph
from tests.unit.ingress.tasks.batching import (
    CHAT,
    MODEL,
    chat,
    end,
    lines_of,
    put,
)
from tests.unit.ingress.tasks.conftest import House, client_of


async def test_batch_answers_every_line_in_order(house: House, client: openai.AsyncOpenAI) -> None:
    sent = await put(client, [chat(n) for n in range(40)], metadata={"night": "1"})
    assert (sent.status, sent.object, sent.metadata) == ("validating", "batch", {"night": "1"})
    assert sent.expires_at == sent.created_at + 86_400
    async with house.crew() as crew:
        batch = await end(client, sent.id)
        await until(lambda: crew.num_running == 0)  # its task ends after it
    assert batch.status == "completed"
    counts = batch.request_counts
    assert counts is not None
    assert (counts.total, counts.completed, counts.failed) == (40, 40, 0)
    assert (batch.error_file_id, batch.errors) == (None, None)
    lines = await lines_of(client, batch.output_file_id)
    assert [line["custom_id"] for line in lines] == [f"c{n}" for n in range(40)]
    for number, line in enumerate(lines):
        assert set(line) == {"id", "custom_id", "response", "error"}
        assert line["error"] is None
        response = line["response"]
        assert (response["status_code"], response["body"]["object"]) == (200, "chat.completion")
        said = response["body"]["choices"][0]["message"]["content"]
        assert said == f"echo: line {number}"
    assert len({line["response"]["request_id"] for line in lines}) == 40
    assert batch.in_progress_at is not None
    assert batch.completed_at is not None
    task = (await client.get("/tasks", cast_to=dict[str, Any]))["data"][0]  # type: ignore[type-var]
    assert (task["status"], task["progress"]["done"]) == ("COMPLETED", 40)


@pytest.mark.parametrize(
    ("endpoint", "body", "key"),
    [
        ("/v1/completions", {"model": MODEL, "prompt": "x"}, "choices"),
        ("/v1/embeddings", {"model": "fake-embedder", "input": "x"}, "data"),
        ("/v1/inference", {"prompt": "x"}, "output"),
        ("/v1/rerank", {"query": "x", "documents": ["x", "y"]}, "results"),
    ],
)
async def test_every_endpoint_is_served(
    house: House, client: openai.AsyncOpenAI, endpoint: str, body: dict[str, Any], key: str
) -> None:
    line = {"custom_id": "a", "method": "POST", "url": endpoint, "body": body}
    sent = await put(client, [line], endpoint)
    async with house.crew():
        batch = await end(client, sent.id)
    (line,) = await lines_of(client, batch.output_file_id)
    assert key in line["response"]["body"]


async def test_bad_lines_have_errors_and_others_answers(
    house: House, client: openai.AsyncOpenAI
) -> None:
    lines = [chat(0), chat(1, temperature=99), chat(2, model="nobody"), chat(3)]
    sent = await put(client, lines)
    async with house.crew():
        batch = await end(client, sent.id)
    counts = batch.request_counts
    assert counts is not None
    assert (counts.completed, counts.failed, batch.status) == (2, 2, "completed")
    output = await lines_of(client, batch.output_file_id)
    errors = await lines_of(client, batch.error_file_id)
    assert [line["custom_id"] for line in output] == ["c0", "c3"]
    assert [(line["custom_id"], line["response"]["status_code"]) for line in errors] == [
        ("c1", 400),
        ("c2", 404),
    ]
    assert errors[0]["response"]["body"]["error"]["param"] == "temperature"


async def test_unsound_file_fails_and_names_the_lines(
    house: House, client: openai.AsyncOpenAI, graph: FakeGraph
) -> None:
    sent = await put(
        client, [chat(0), b"{", chat(0), chat(3, stream=True), {**chat(4), "url": "x"}]
    )
    async with house.crew():
        batch = await end(client, sent.id)
    assert batch.status == "failed"
    assert batch.failed_at is not None
    assert batch.errors is not None
    assert [(one.line, one.code, one.param) for one in batch.errors.data or ()] == [
        (2, "invalid_json_line", None),
        (3, "duplicate_custom_id", "custom_id"),
        (4, "stream_not_supported", "body.stream"),
        (5, "invalid_url", "url"),
    ]
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    assert graph.requests == []


@pytest.mark.parametrize(
    "change",
    [
        {"endpoint": "/v1/data/search"},
        {"completion_window": "1h"},
        {"metadata": {"a": 1}},
        {"metadata": {"a": "x" * 513}},
        {"output_expires_after": {"anchor": "created_at", "seconds": 59}},
        {"priority": 9},
    ],
)
async def test_bad_order_is_refused(house: House, change: dict[str, Any]) -> None:
    body = {"input_file_id": "file_1", "endpoint": CHAT, "completion_window": "24h"}
    async with house.client() as client:
        response = await client.post("/v1/batches", json={**body, **change})
    assert response.status_code == 400, response.text


async def test_route_that_is_not_served_is_refused(house_of: Any) -> None:
    house = house_of(interfaces=("files", "chat"))
    async with client_of(house) as client:
        with pytest.raises(openai.BadRequestError, match="does not serve"):
            await put(client, [chat(0)], "/v1/embeddings")


async def test_output_expires_when_that_was_said(house: House, client: openai.AsyncOpenAI) -> None:
    hour: Any = {"anchor": "created_at", "seconds": 3600}
    sent = await put(client, [chat(0)], output_expires_after=hour)
    async with house.crew():
        batch = await end(client, sent.id)
    file = await client.files.retrieve(batch.output_file_id or "")
    assert file.expires_at == file.created_at + 3600
    assert (file.purpose, file.filename) == ("batch_output", f"{batch.id}_output.jsonl")


async def test_list_pages_as_the_client_asks(client: openai.AsyncOpenAI) -> None:
    ids = [(await put(client, [chat(0)])).id for _ in range(5)]
    assert [batch.id async for batch in client.batches.list(limit=2)] == ids[::-1]


async def test_lines_are_held_to_what_the_key_covers(
    house: House, client: openai.AsyncOpenAI
) -> None:
    house.keys.keep("key_1", grants=Grants(models=("second-model",)))
    sent = await put(client, [chat(0), chat(1, model="second-model")])
    async with house.crew():
        batch = await end(client, sent.id)
    assert [one["custom_id"] for one in await lines_of(client, batch.error_file_id)] == ["c0"]
    assert [one["custom_id"] for one in await lines_of(client, batch.output_file_id)] == ["c1"]


async def test_line_remembers_its_collection(
    house: House, client: openai.AsyncOpenAI, graph: FakeGraph
) -> None:
    graph.stored["docs"] = {"a": Document(id="a", text="line one")}
    sent = await put(client, [chat(0, model="rag/docs"), chat(1)])
    async with house.crew():
        batch = await end(client, sent.id)
    with house.database.read() as connection:
        rows = connection.exec_driver_sql("SELECT line, collection FROM batch_lines ORDER BY line")
        assert [tuple(row) for row in rows] == [(1, "docs"), (2, "")]
    assert len(await lines_of(client, batch.output_file_id)) == 2


async def test_foreign_batch_is_a_missing_one_to_the_byte(
    house: House, client: openai.AsyncOpenAI
) -> None:
    ours = await put(client, [chat(0)])
    async with house.client("acme") as theirs:
        for method, path in (("GET", ""), ("POST", "/cancel")):
            found = []
            for id_ in (ours.id, f"batch_{'0' * 32}"):
                response = await theirs.request(method, f"/v1/batches/{id_}{path}")
                error = {**response.json()["error"], "request_id": ""}
                found.append((response.status_code, error))
            assert found[0] == found[1]
            assert found[0][0] == 404
        assert (await theirs.get("/v1/batches")).json()["data"] == []
    assert (await client.batches.retrieve(ours.id)).status == "validating"
