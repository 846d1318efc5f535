"""Tasks over HTTP, done by a crew in this process."""

import asyncio
import json
from typing import Any

import httpx

from deployments.errors import EngineFailed, InvalidRequest
from deployments.stores.key_rows import Grants
from tests.unit.ingress.fake_graph import FakeGraph
from tests.unit.ingress.tasks.conftest import Built, House

ASK = {"prompt": "one two three", "max_tokens": 8}


async def put(client: httpx.AsyncClient, **body: Any) -> str:
    response = await client.post("/v1/inference/async", json={**ASK, **body})
    assert response.status_code == 202, response.text
    assert response.json()["status"] == "PENDING"
    assert response.headers["location"] == f"/v1/tasks/{response.json()['task_id']}"
    return response.json()["task_id"]


async def end(client: httpx.AsyncClient, task_id: str, wait_s: float = 10) -> dict[str, Any]:
    response = await client.get(f"/v1/tasks/{task_id}", params={"wait_s": wait_s})
    assert response.status_code == 200, response.text
    return response.json()


async def test_task_answers_what_the_route_would(house: House):
    async with house.client() as client, house.crew():
        task = await end(client, await put(client))
        at_once = (await client.post("/v1/inference", json=ASK)).json()
    assert task["status"] == "COMPLETED"
    assert task["attempts"] == 1
    assert {**task["output"], "id": ""} == {**at_once, "id": ""}
    assert task["usage"] == at_once["usage"]
    assert task["created_at"] <= task["started_at"] <= task["completed_at"] < task["expires_at"]


async def test_task_waits_until_there_is_a_worker_and_is_listed(house: House):
    async with house.client() as client:
        ids = [await put(client) for _ in range(3)]
        assert (await end(client, ids[0], 0.05))["status"] == "PENDING"
        page = (await client.get("/v1/tasks", params={"limit": 2})).json()
        rest = (await client.get("/v1/tasks", params={"after": page["data"][-1]["task_id"]})).json()
        assert [one["task_id"] for one in (*page["data"], *rest["data"])] == ids[::-1]
        assert (page["has_more"], rest["has_more"]) == (True, False)
        async with house.crew():
            assert {(await end(client, one))["status"] for one in ids} == {"COMPLETED"}
        done = await client.get("/v1/tasks", params={"status": "COMPLETED"})
        assert len(done.json()["data"]) == 3


async def test_bad_requests_are_refused_at_once(house: House):
    async with house.client() as client:
        for body, param in (
            ({"prompt": ""}, "prompt"),
            ({"priority": 10}, "priority"),
            ({"not_before": "tomorrow"}, "not_before"),
            ({"not_before": "2027-01-01T00:00:00"}, "not_before"),
            ({"deadline_s": 0}, "deadline_s"),
            ({"unknown": 1}, "unknown"),
        ):
            response = await client.post("/v1/inference/async", json={**ASK, **body})
            assert (response.status_code, response.json()["error"]["param"]) == (400, param)
        assert (await client.get("/v1/tasks")).json()["data"] == []


async def test_what_can_pass_is_tried_again(house: House, graph: FakeGraph):
    graph.error = EngineFailed("the replica died")
    async with house.client() as client, house.crew():
        task_id = await put(client)
        while house.queue().backlog().scheduled == 0:
            await asyncio.sleep(0.01)
        graph.error = None
        task = await end(client, task_id)
    assert (task["status"], task["attempts"]) == ("COMPLETED", 2)


async def test_what_cannot_pass_fails_at_once_and_is_done_again_when_asked(
    house: House, graph: FakeGraph
):
    graph.error = InvalidRequest("the engine cannot do that")
    async with house.client() as client, house.crew():
        task_id = await put(client)
        task = await end(client, task_id)
        assert (task["status"], task["attempts"]) == ("FAILED", 1)
        assert task["error"]["message"] == "the engine cannot do that"
        graph.error = None
        assert (await client.post(f"/v1/tasks/{task_id}/retry")).status_code == 202
        again = await end(client, task_id)
        assert (again["status"], again["error"]) == ("COMPLETED", None)
        refused = await client.post(f"/v1/tasks/{task_id}/retry")
        assert refused.status_code == 409


async def test_cancel_stops_a_running_task_within_a_second(house: House, graph: FakeGraph):
    graph.delay_s = 30
    async with house.client() as client, house.crew():
        task_id = await put(client)
        while not graph.num_running:
            await asyncio.sleep(0.01)
        response = await client.delete(f"/v1/tasks/{task_id}")
        assert (response.status_code, response.json()["cancelling"]) == (202, True)
        task = await end(client, task_id, 1.0)
        assert (task["status"], graph.num_running) == ("CANCELLED", 0)
        again = await client.delete(f"/v1/tasks/{task_id}")
        assert (again.status_code, again.json()["status"]) == (200, "CANCELLED")


async def test_cancel_ends_a_waiting_task_at_once(house: House):
    async with house.client() as client:
        response = await client.delete(f"/v1/tasks/{await put(client)}")
        assert (response.status_code, response.json()["status"]) == (200, "CANCELLED")


async def test_deadline_stops_a_running_task_and_one_that_comes_too_late(
    house: House, graph: FakeGraph
):
    graph.delay_s = 30
    async with house.client() as client:
        late = await put(client, deadline_s=0.01)
        async with house.crew():
            running = await put(client, deadline_s=0.5)
            tasks = [await end(client, one) for one in (late, running)]
    assert [task["status"] for task in tasks] == ["FAILED", "FAILED"]
    assert {task["error"]["code"] for task in tasks} == {"deadline_exceeded"}
    assert [task["attempts"] for task in tasks] == [0, 1]


async def test_higher_priority_is_done_first(house: House, graph: FakeGraph):
    async with house.client() as client:
        for priority in (1, 9, 5):
            await put(client, prompt=f"p{priority}", priority=priority)
        async with house.crew(max_running=1):
            while len(graph.requests) < 3:
                await asyncio.sleep(0.01)
    asked = [request.messages[0].content for request in graph.requests if request.messages]
    assert asked == ["p9", "p5", "p1"]


async def test_task_does_not_begin_before_its_time(house: House, graph: FakeGraph):
    async with house.client() as client, house.crew():
        task_id = await put(client, not_before="2100-01-01T00:00:00Z")
        assert (await end(client, task_id, 0.3))["status"] == "PENDING"
    assert graph.requests == []


async def test_tenants_do_not_meet(house: House):
    async with house.client() as client, house.client("acme") as other, house.crew():
        task_id = await put(client)
        await end(client, task_id)
        missing = f"task_{'0' * 32}"
        for method, path in (
            ("GET", ""),
            ("DELETE", ""),
            ("POST", "/retry"),
            ("GET", "/events"),
            ("DELETE", "/result"),
        ):
            foreign = await other.request(method, f"/v1/tasks/{task_id}{path}")
            unknown = await other.request(method, f"/v1/tasks/{missing}{path}")
            assert (foreign.status_code, unknown.status_code) == (404, 404)
            assert _bare(foreign) == _bare(unknown)
        assert (await other.get("/v1/tasks")).json()["data"] == []


def _bare(response: httpx.Response) -> dict[str, Any]:
    return {**response.json()["error"], "request_id": ""}


async def test_key_that_is_gone_does_nothing_more(house: House, graph: FakeGraph):
    async with house.client() as client:
        task_id = await put(client)
        await house.keys.revoke("key_1")
        async with house.crew():
            task = await end(client, task_id)
    assert (task["status"], task["error"]["code"]) == ("FAILED", "invalid_api_key")
    assert graph.requests == []


async def test_task_is_held_to_what_its_key_covers(house: House, graph: FakeGraph):
    async with house.client() as client:
        task_id = await put(client, model="second-model")
        house.keys.keep("key_1", grants=Grants(models=("fake-model",)))
        async with house.crew():
            task = await end(client, task_id)
    assert (task["status"], task["error"]["code"]) == ("FAILED", "model_not_found")


async def test_too_many_waiting_are_refused(house_of: Built):
    house = house_of(tasks={"max_waiting": 3})
    async with house.client() as client, house.client("acme") as other:
        for _ in range(3):
            await put(client)
        response = await client.post("/v1/inference/async", json=ASK)
        assert (response.status_code, response.headers["retry-after"]) == (429, "30")
        await put(other)


async def test_same_idempotency_key_is_one_task(house: House):
    async with house.client() as client:
        headers = {"idempotency-key": "once"}
        first, second = [
            await client.post("/v1/inference/async", json=ASK, headers=headers) for _ in range(2)
        ]
        assert first.json() == second.json()
        assert len((await client.get("/v1/tasks")).json()["data"]) == 1


async def test_removed_task_is_gone(house: House):
    async with house.client() as client, house.crew():
        task_id = await put(client, not_before="2100-01-01T00:00:00Z")
        assert (await client.delete(f"/v1/tasks/{task_id}/result")).status_code == 409
        task_id = await put(client)
        await end(client, task_id)
        assert (await client.delete(f"/v1/tasks/{task_id}/result")).status_code == 200
        assert (await client.get(f"/v1/tasks/{task_id}")).status_code == 404


async def test_large_index_is_a_task_with_progress(house_of: Built, graph: FakeGraph):
    house = house_of(tasks={"large_index_bytes": 2048})
    graph.stored["docs"] = {}
    documents = [{"id": f"d{i}", "text": f"text number {i}"} for i in range(120)]
    async with house.client() as client, house.crew():
        body = {"collection": "docs", "documents": [*documents, {"id": "bad", "text": ""}]}
        response = await client.post("/v1/data/index", json=body)
        assert response.status_code == 202, response.text
        task = await end(client, response.json()["task_id"])
        small = await client.post(
            "/v1/data/index", json={**body, "documents": documents}, params={"background": "false"}
        )
        assert small.status_code == 200
    assert (task["status"], task["path"]) == ("COMPLETED", "/v1/data/index")
    assert task["progress"] == {"done": 121, "total": 121, "failed": 1}
    assert len(task["output"]["documents"]) == 120
    assert [one["error"]["param"] for one in task["output"]["errors"]] == ["documents[120].text"]
    assert len(graph.stored["docs"]) == 120


async def test_small_index_can_be_asked_to_be_a_task(house: House, graph: FakeGraph):
    graph.stored["docs"] = {}
    async with house.client() as client, house.crew():
        body = {"collection": "docs", "documents": [{"id": "a", "text": "x"}]}
        response = await client.post("/v1/data/index", json=body, params={"background": "true"})
        assert response.status_code == 202
        assert (await end(client, response.json()["task_id"]))["status"] == "COMPLETED"
    assert "a" in graph.stored["docs"]


async def test_index_of_nothing_good_fails(house: House, graph: FakeGraph):
    graph.stored["docs"] = {}
    async with house.client() as client, house.crew():
        body = {"collection": "docs", "documents": [{"id": "a", "text": ""}]}
        response = await client.post("/v1/data/index", json=body, params={"background": "true"})
        task = await end(client, response.json()["task_id"])
    assert (task["status"], task["error"]["code"]) == ("FAILED", "invalid_request")


def events_of(text: str) -> list[dict[str, Any]]:
    blocks = [block for block in text.split("\n\n") if block.startswith("data: ")]
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


async def test_streamed_task_is_followed_and_followed_again(house: House):
    async with house.client() as client, house.crew():
        task_id = await put(client, stream=True)
        url = f"/v1/tasks/{task_id}/events"
        events = events_of((await client.get(url)).text)
        task = await end(client, task_id)
        later = events_of((await client.get(url, params={"after": 2})).text)
    *said, last = events
    assert [one["number"] for one in said] == [*range(1, len(said) + 1)]
    assert "".join(one["text"] for one in said if one["type"] == "delta") == "echo: one two three"
    assert (said[-1]["type"], last["type"], last["status"]) == ("done", "end", "COMPLETED")
    assert later == events[2:]
    assert task["output"]["output"] == "echo: one two three"
    assert task["usage"] == task["output"]["usage"]


async def test_stream_that_breaks_begins_again_and_says_so(house: House, graph: FakeGraph):
    graph.error, graph.error_after = EngineFailed("the replica died"), 1
    async with house.client() as client, house.crew():
        task_id = await put(client, stream=True)
        while house.queue().backlog().scheduled == 0:
            await asyncio.sleep(0.01)
        graph.error = None
        events = events_of((await client.get(f"/v1/tasks/{task_id}/events")).text)
    kinds = [one["type"] for one in events]
    restarted = kinds.index("restarted")
    assert kinds[restarted - 1] == "error"
    assert events[restarted]["attempt"] == 2
    again = [one["text"] for one in events[restarted:] if one["type"] == "delta"]
    assert "".join(again) == "echo: one two three"
    assert events[-1]["status"] == "COMPLETED"


async def test_followers_of_many_choices_get_them_all(house: House):
    async with house.client() as client, house.crew():
        task = await end(client, await put(client, stream=True, n=2))
        at_once = (await client.post("/v1/inference", json={**ASK, "n": 2})).json()
    assert {**task["output"], "id": ""} == {**at_once, "id": ""}
