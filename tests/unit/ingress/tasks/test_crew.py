"""Crews that die, hang, go, or lose the database for a while: each task ends once."""

import asyncio
from typing import Any

import pytest

from deployments.errors import RagError, StoreUnavailable
from deployments.ingress.tasks import crew as crew_module
from deployments.ingress.tasks.crew import Crew
from deployments.stores.tasks.ending import MAX_LOST
from tests.unit.ingress.conftest import until
from tests.unit.ingress.fake_graph import FakeGraph
from tests.unit.ingress.tasks.conftest import House
from tests.unit.ingress.tasks.test_tasks import end, put


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_module, "BEAT_S", 0.05)
    monkeypatch.setattr(crew_module, "DEAD_S", 2.5)  # a busy machine may pause for a second
    monkeypatch.setattr(crew_module, "EXPIRE_S", 0.1)


async def test_task_of_a_dead_worker_is_done_by_another(house: House):
    async with house.client() as client:
        task_id = await put(client)
        dead = house.queue()
        dead.enlist()
        (claim,) = dead.claim(1).result()
        async with house.crew():
            task = await end(client, task_id)
    assert (task["status"], task["attempts"]) == ("COMPLETED", 2)
    assert not dead.progress(claim, crew_module.TaskProgress(1, 1)).result()


async def test_task_that_kills_its_workers_is_put_aside(house: House):
    async with house.client() as client:
        task_id = await put(client)
        for _ in range(MAX_LOST):
            queue = house.queue()
            queue.enlist()
            assert queue.claim(1).result()
            assert house.queue().bury(queue.worker, 0) == 1
        async with house.crew():
            task = await end(client, task_id, 0.2)
    assert (task["status"], task["error"]["code"]) == ("FAILED", "task_quarantined")


async def test_worker_that_was_taken_for_dead_stops_and_begins_anew(house: House, graph: FakeGraph):
    graph.delay_s = 0.2
    async with house.client() as client, house.crew() as crew:
        task_id = await put(client)
        await until(lambda: crew.num_running == 1)
        other = house.queue()
        for worker, beat in other.beats().items():
            while not other.bury(worker, beat):
                beat = other.beats()[worker]
        task = await end(client, task_id)
    assert (task["status"], task["attempts"]) == ("COMPLETED", 2)


async def test_drained_crew_lets_short_tasks_end_and_gives_back_long_ones(
    house: House, graph: FakeGraph
):
    async with house.client() as client:
        graph.delay_s = 0.05
        async with house.crew() as crew:
            short = await put(client)
            await until(lambda: crew.num_running == 1)
            await crew.drain(5)
        assert (await end(client, short, 0))["status"] == "COMPLETED"
        graph.delay_s = 30
        async with house.crew() as crew:
            long = await put(client)
            await until(lambda: crew.num_running == 1)
            await crew.drain(0.1)
        assert (await end(client, long, 0))["status"] == "PENDING"
        graph.delay_s = 0
        async with house.crew():
            assert (await end(client, long))["status"] == "COMPLETED"


async def test_outcome_waits_for_a_database_that_is_away(
    house: House, graph: FakeGraph, monkeypatch: pytest.MonkeyPatch
):
    write = house.database.write
    is_away = False

    def flaky():
        if is_away:
            raise StoreUnavailable("the database did not answer")
        return write()

    monkeypatch.setattr(house.database, "write", flaky)
    graph.delay_s = 0.05
    async with house.client() as client, house.crew() as crew:
        task_id = await put(client)
        await until(lambda: crew.num_running == 1)
        is_away = True
        await until(lambda: graph.num_closed == 1)
        await asyncio.sleep(0.2)
        assert crew.num_running == 1
        is_away = False
        task = await end(client, task_id)
    assert (task["status"], task["attempts"], len(graph.requests)) == ("COMPLETED", 1, 1)


async def test_no_more_run_at_once_than_there_is_room_for(house: House, graph: FakeGraph):
    graph.delay_s, most = 0.02, 0
    async with house.client() as client, house.crew(max_running=3) as crew:
        ids = [await put(client) for _ in range(12)]
        while (await client.get("/v1/tasks", params={"status": "PENDING"})).json()["data"]:
            most = max(most, crew.num_running)
        assert {(await end(client, one))["status"] for one in ids} == {"COMPLETED"}
    assert most == 3


async def test_told_crew_takes_one_at_a_time_and_finds_old_ones_itself(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(crew_module, "TOLD_POLL_S", 0.05)
    async with house.client() as client, house.crew(is_told=True) as crew:
        first, second = await put(client), await put(client)
        assert await crew.take()
        assert (await end(client, first, 0))["status"] == "COMPLETED"
        assert (await end(client, second, 0.3))["status"] == "PENDING"
        monkeypatch.setattr(crew_module, "UNTOLD_S", 0.1)
        assert (await end(client, second))["status"] == "COMPLETED"
        assert not await crew.take()


async def test_those_who_are_told_do_all_there_is_and_claim_together(house: House):
    async with house.client() as client, house.crew(is_told=True, max_running=8) as crew:
        tasks = [await put(client) for _ in range(60)]
        claims, looks = _counted(crew, "claim"), _counted(crew, "has_ready")

        async def take_all() -> int:
            num = 0
            while await crew.take():
                num += 1
            return num

        took = await asyncio.gather(*(take_all() for _ in range(8)))
        ended = [(await end(client, one, 0.2))["status"] for one in tasks]
    assert sum(took) == 60
    assert min(took) > 0  # nobody is sent away while there are tasks
    assert set(ended) == {"COMPLETED"}
    assert len(claims) < 60
    assert len(looks) <= 5  # looking keeps those waiting who were told


async def test_claims_that_were_unsure_are_done_beside_what_was_wanted(house: House):
    async with house.client() as client, house.crew(is_told=True, max_running=8) as crew:
        tasks = [await put(client) for _ in range(3)]
        claim = crew._queue.claim
        crew._queue.claim = lambda num, **given: claim(num + 2, **given)  # type: ignore[method-assign]
        assert await crew.take()
        ended = [(await end(client, one))["status"] for one in tasks]
    assert ended == ["COMPLETED"] * 3


async def test_backlog_that_nobody_was_told_of_is_done_without_a_pause(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(crew_module, "UNTOLD_S", 0.0)
    monkeypatch.setattr(crew_module, "TOLD_POLL_S", 2.0)
    async with house.client() as client:
        tasks = [await put(client) for _ in range(30)]
        async with house.crew(is_told=True, max_running=2):
            ended = [(await end(client, one, 10))["status"] for one in tasks]
    assert set(ended) == {"COMPLETED"}


def _counted(crew: Crew, name: str) -> list[None]:
    """Note each call of a method of the crew's table."""
    method, calls = getattr(crew._queue, name), list[None]()

    def noted(*args: Any, **given: Any) -> Any:
        calls.append(None)
        return method(*args, **given)

    setattr(crew._queue, name, noted)
    return calls


async def test_two_crews_do_each_task_once(house: House, graph: FakeGraph):
    async with house.client() as client, house.crew(), house.crew():
        ids = [await put(client, prompt=f"number {i}") for i in range(60)]
        tasks = [await end(client, one) for one in ids]
    assert [task["attempts"] for task in tasks] == [1] * 60
    assert len(graph.requests) == 60


async def test_result_is_kept_for_its_time_only(house: House):
    async with house.client() as client, house.crew():
        short, long = await put(client, keep_s=1), await put(client)
        await end(client, long)
        async with asyncio.timeout(5):
            while (await client.get(f"/v1/tasks/{short}")).status_code == 200:
                await asyncio.sleep(0.05)
        assert (await client.get(f"/v1/tasks/{long}")).status_code == 200


async def test_crew_that_does_not_look_around_is_not_well(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    async with house.crew() as crew:
        crew.check()
        monkeypatch.setattr(crew_module, "SILENT_S", -1.0)
        with pytest.raises(RagError):
            crew.check()
