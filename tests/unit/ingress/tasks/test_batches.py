"""Batches over HTTP, through OpenAI's own client, done by crews that come, go and die."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import openai
import pytest

from deployments.backoff import Backoff
from deployments.errors import EngineFailed, Overloaded, RateLimited
from deployments.ingress.batches import asking
from deployments.stores.key_rows import Grants
from deployments.types import Document
from tests.unit.ingress.fake_graph import FakeGraph
from tests.unit.ingress.tasks.conftest import House
from tests.unit.ingress.tasks.openai_client import client_of

CHAT = "/v1/chat/completions"
MODEL = "fake-model"


@pytest.fixture
async def client(house: House) -> AsyncIterator[openai.AsyncOpenAI]:
    async with client_of(house) as client:
        yield client


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "RETRY", Backoff(0.005, 30.0))


def chat(number: int, **said: Any) -> dict[str, Any]:
    body = {"model": MODEL, "messages": [{"role": "user", "content": f"line {number}"}], **said}
    return {"custom_id": f"c{number}", "method": "POST", "url": CHAT, "body": body}


async def put(
    client: openai.AsyncOpenAI, lines: Sequence[Any], endpoint: Any = CHAT, **said: Any
) -> openai.types.Batch:
    text = b"\n".join(one if isinstance(one, bytes) else json.dumps(one).encode() for one in lines)
    file = await client.files.create(file=("in.jsonl", text), purpose="batch")
    return await client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h", **said
    )


async def end(client: openai.AsyncOpenAI, batch_id: str, wait_s: float = 20) -> openai.types.Batch:
    async with asyncio.timeout(wait_s):
        while True:
            batch = await client.batches.retrieve(batch_id)
            if batch.status in ("completed", "failed", "expired", "cancelled"):
                return batch
            await asyncio.sleep(0.02)


async def lines_of(client: openai.AsyncOpenAI, file_id: str | None) -> list[dict[str, Any]]:
    if file_id is None:
        return []
    text = (await client.files.content(file_id)).content
    assert len(text) == (await client.files.retrieve(file_id)).bytes
    return [json.loads(line) for line in text.splitlines()]


def asked(graph: FakeGraph) -> Counter[str]:
    return Counter(request.messages[-1].content for request in graph.requests if request.messages)


async def some_done(client: openai.AsyncOpenAI, batch_id: str, count: int) -> int:
    while True:
        batch = await client.batches.retrieve(batch_id)
        assert batch.request_counts is not None
        if batch.request_counts.completed >= count:
            return batch.request_counts.completed
        await asyncio.sleep(0.01)


async def test_batch_answers_every_line_in_order(house: House, client: openai.AsyncOpenAI) -> None:
    sent = await put(client, [chat(n) for n in range(40)], metadata={"night": "1"})
    assert (sent.status, sent.object, sent.metadata) == ("validating", "batch", {"night": "1"})
    assert sent.expires_at == sent.created_at + 86_400
    async with house.crew():
        batch = await end(client, sent.id)
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


@pytest.mark.parametrize("error", [Overloaded("full"), RateLimited("slow"), EngineFailed("died")])
async def test_line_is_asked_again_when_that_may_help(
    house: House, client: openai.AsyncOpenAI, graph: FakeGraph, error: Exception
) -> None:
    graph.error = error
    sent = await put(client, [chat(0)])
    async with house.crew():
        while not graph.requests:
            await asyncio.sleep(0.005)
        graph.error = None
        batch = await end(client, sent.id)
    (line,) = await lines_of(client, batch.output_file_id)
    assert line["response"]["status_code"] == 200
    assert len(graph.requests) > 1


async def test_line_that_always_breaks_off_has_an_error(
    house: House, client: openai.AsyncOpenAI, graph: FakeGraph
) -> None:
    graph.error = EngineFailed("the engine died")
    sent = await put(client, [chat(0)])
    async with house.crew():
        batch = await end(client, sent.id)
    (line,) = await lines_of(client, batch.error_file_id)
    assert (line["response"]["status_code"], len(graph.requests)) == (502, asking.MAX_BROKEN)


async def test_worker_that_goes_leaves_the_rest_to_the_next(
    house: House, client: openai.AsyncOpenAI, graph: FakeGraph
) -> None:
    graph.delay_s = 0.05
    sent = await put(client, [chat(n) for n in range(120)])
    async with house.crew():
        done = await some_done(client, sent.id, 30)
    between = await client.batches.retrieve(sent.id)
    assert between.status == "in_progress"
    assert between.request_counts is not None
    assert done <= between.request_counts.completed < 120
    async with house.crew():
        batch = await end(client, sent.id)
    await _check_whole(client, batch, graph, 120, at_once=16)


async def test_worker_that_dies_costs_only_what_was_not_written(
    house: House, client: openai.AsyncOpenAI, graph: FakeGraph
) -> None:
    graph.delay_s = 0.01
    sent = await put(client, [chat(n) for n in range(120)])
    doomed = house.queue()
    doomed.enlist()
    (claim,) = doomed.claim(1).result(10)
    job = house.batch_job()

    async def report(_: object) -> bool:
        return True

    attempt = asyncio.create_task(job(claim, report))
    await some_done(client, sent.id, 30)
    house.batches.attempts.record = _dead  # type: ignore[method-assign]  # nothing is written now
    attempt.cancel()
    await asyncio.gather(attempt, return_exceptions=True)
    del house.batches.attempts.record
    written = _written(house, sent.id)
    first = asked(graph)
    assert house.queue().bury(doomed.worker, 0) == 1
    async with house.crew():
        batch = await end(client, sent.id)
    twice = [text for text, count in asked(graph).items() if count > 1]
    assert not {f"line {n}" for n in written} & set(twice)
    assert sum(first.values()) + 120 - len(written) == sum(asked(graph).values())
    await _check_whole(client, batch, graph, 120, at_once=120)


async def test_earlier_attempt_that_is_alive_is_not_heard(
    house: House, client: openai.AsyncOpenAI, graph: FakeGraph
) -> None:
    graph.delay_s = 0.05
    sent = await put(client, [chat(n) for n in range(60)])
    stale = house.queue()
    stale.enlist()
    (claim,) = stale.claim(1).result(10)
    job = house.batch_job()

    async def report(_: object) -> bool:
        return True

    attempt = asyncio.create_task(job(claim, report))
    await some_done(client, sent.id, 10)
    assert house.queue().bury(stale.worker, 0) == 1
    async with house.crew():
        batch = await end(client, sent.id)
    (failed,) = await asyncio.gather(attempt, return_exceptions=True)
    assert isinstance(failed, Exception)
    lines = await lines_of(client, batch.output_file_id)
    assert [line["custom_id"] for line in lines] == [f"c{n}" for n in range(60)]


async def test_cancelled_batch_keeps_what_was_answered(
    house: House, client: openai.AsyncOpenAI, graph: FakeGraph
) -> None:
    graph.delay_s = 0.01
    sent = await put(client, [chat(n) for n in range(200)])
    async with house.crew():
        await some_done(client, sent.id, 20)
        cancelling = await client.batches.cancel(sent.id)
        assert cancelling.status == "cancelling"
        assert cancelling.cancelling_at is not None
        batch = await end(client, sent.id)
    assert batch.status == "cancelled"
    output = await lines_of(client, batch.output_file_id)
    errors = await lines_of(client, batch.error_file_id)
    assert batch.request_counts is not None
    assert len(output) == batch.request_counts.completed >= 20
    assert len(output) + len(errors) == 200
    assert {line["error"]["code"] for line in errors} == {"batch_cancelled"}
    assert graph.num_running == 0
    assert (await client.batches.cancel(sent.id)).status == "cancelled"


async def test_batch_past_its_window_expires_with_what_was_answered(
    house: House, client: openai.AsyncOpenAI, graph: FakeGraph
) -> None:
    graph.delay_s = 0.01
    sent = await put(client, [chat(n) for n in range(200)])
    async with house.crew():
        await some_done(client, sent.id, 20)
        _make_late(house, sent.id)
        batch = await end(client, sent.id)
    assert batch.status == "expired"
    assert batch.expired_at is not None
    output = await lines_of(client, batch.output_file_id)
    errors = await lines_of(client, batch.error_file_id)
    assert 20 <= len(output) < 200
    assert {line["error"]["code"] for line in errors} == {"batch_expired"}


async def test_revoked_key_ends_its_batch(
    house: House, client: openai.AsyncOpenAI, graph: FakeGraph
) -> None:
    graph.delay_s = 0.02
    sent = await put(client, [chat(n) for n in range(300)])
    async with house.crew():
        await some_done(client, sent.id, 5)
        await house.keys.revoke("key_1")
        batch = await end(client, sent.id)
    assert batch.status == "failed"
    assert batch.errors is not None
    assert [one.code for one in batch.errors.data or ()] == ["invalid_api_key"]
    assert len(await lines_of(client, batch.output_file_id)) < 300


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


async def test_no_more_lines_run_than_said(house_of: Any, graph: FakeGraph) -> None:
    house = house_of(batches={"concurrency": 3})
    graph.delay_s = 0.01
    most = 0
    async with client_of(house) as client, house.crew():
        sent = await put(client, [chat(n) for n in range(40)])
        while (await client.batches.retrieve(sent.id)).status != "completed":
            most = max(most, graph.num_running)
            await asyncio.sleep(0.002)
    assert most == 3


async def test_batch_makes_way_for_others(
    house: House, client: openai.AsyncOpenAI, graph: FakeGraph
) -> None:
    graph.delay_s = 0.05
    async with house.crew():
        sent = await put(client, [chat(n) for n in range(400)])
        await until(lambda: graph.num_running >= 8)
        house.num_others = 1.0
        await until(lambda: graph.num_running <= 2)
        assert (await client.batches.retrieve(sent.id)).status == "in_progress"
        house.num_others = 0.0
        await until(lambda: graph.num_running >= 8)
        assert (await end(client, sent.id)).status == "completed"


async def until(is_so: Callable[[], bool], wait_s: float = 10) -> None:
    async with asyncio.timeout(wait_s):
        while not is_so():
            await asyncio.sleep(0.005)


async def _check_whole(
    client: openai.AsyncOpenAI, batch: Any, graph: FakeGraph, total: int, at_once: int
) -> None:
    """See that every line is answered once, and that only those under way were asked again."""
    assert batch.status == "completed"
    lines = await lines_of(client, batch.output_file_id)
    assert [line["custom_id"] for line in lines] == [f"c{n}" for n in range(total)]
    counts = asked(graph)
    assert set(counts) == {f"line {n}" for n in range(total)}
    assert sum(counts.values()) <= total + at_once


def _written(house: House, batch_id: str) -> list[int]:
    with house.database.read() as connection:
        rows = connection.exec_driver_sql(
            "SELECT line FROM batch_lines WHERE batch_id = ? AND data IS NOT NULL", (batch_id,)
        )
        return [row.line - 1 for row in rows]


def _make_late(house: House, batch_id: str) -> None:
    with house.database.write() as connection:
        for table in ("batches SET expires_at = 1 WHERE id", "tasks SET deadline = 1 WHERE id"):
            id_ = batch_id
            if table.startswith("tasks"):
                row = connection.exec_driver_sql(
                    "SELECT task_id FROM batches WHERE id = ?", (batch_id,)
                )
                id_ = row.scalar_one()
            connection.exec_driver_sql(f"UPDATE {table} = ?", (id_,))  # noqa: S608


def _dead(*_: object) -> None:
    raise RuntimeError("the process is gone")
