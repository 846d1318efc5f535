"""What becomes of batches whose crews come, go and die, and that others stop or cross."""

import asyncio
from typing import Any

import openai
import pytest

from deployments.backoff import Backoff
from deployments.errors import EngineFailed, Overloaded, RateLimited
from deployments.ingress.batches import asking
from deployments.stores.tasks.queue import TaskQueue
from deployments.types.tasks import TaskEnd
from tests.unit.ingress.conftest import until
from tests.unit.ingress.fake_graph import FakeGraph
from tests.unit.ingress.tasks.batching import (
    asked,
    chat,
    end,
    lines_of,
    put,
    some_done,
)
from tests.unit.ingress.tasks.conftest import Built, House, client_of


@pytest.fixture
def house(house_of: Built) -> House:
    return house_of(batches={"concurrency": 16})


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "RETRY", Backoff(0.005, 30.0))


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
    doomed, attempt = _begun(house)
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
    stale, attempt = _begun(house)
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
        house.idle = 0.0
        await until(lambda: graph.num_running <= 2)
        assert (await client.batches.retrieve(sent.id)).status == "in_progress"
        house.idle = 60.0
        await until(lambda: graph.num_running >= 8)
        assert (await end(client, sent.id)).status == "completed"


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


def _begun(house: House) -> tuple[TaskQueue, asyncio.Task[TaskEnd]]:
    """Begin an attempt at the one batch there is, in no crew: as a worker of its own."""
    worker = house.queue()
    worker.enlist()
    (claim,) = worker.claim(1).result(10)

    async def report(_: object) -> bool:
        return True

    return worker, asyncio.create_task(house.batch_job()(claim, report))


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
