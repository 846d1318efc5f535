"""Many requests in one call."""

from deployments.stores.key_rows import Grants
from tests.unit.ingress.fake_graph import FakeGraph
from tests.unit.ingress.tasks.conftest import Built, House


async def test_results_come_in_order_with_an_error_for_each_that_failed(house: House):
    requests = [{"prompt": f"number {i}", "max_tokens": 8} for i in range(40)]
    requests[7] = {"prompt": ""}
    requests[9] = {"prompt": "x", "stream": True}
    requests[11] = {"prompt": "x", "model": "no-such-model"}
    async with house.client() as client:
        response = await client.post("/v1/inference/batch", json={"requests": requests})
    assert response.status_code == 200, response.text
    results = response.json()["results"]
    assert [one["index"] for one in results] == [*range(40)]
    assert {one["index"]: one["status"] for one in results if one["error"]} == {
        7: 400,
        9: 400,
        11: 404,
    }
    assert results[7]["error"]["param"] == "prompt"
    assert results[8]["output"]["output"] == "echo: number 8"
    assert response.json()["num_failed"] == 3
    total = sum(one["output"]["usage"]["total_tokens"] for one in results if one["output"])
    assert response.json()["usage"]["total_tokens"] == total


async def test_no_more_than_the_bound_run_at_once(house_of: Built, graph: FakeGraph):
    house, most = house_of(tasks={"batch_at_once": 3}), 0
    graph.delay_s = 0.01
    generate = graph.generate

    async def counted(*args, **given):
        nonlocal most
        async for event in generate(*args, **given):
            most = max(most, graph.num_running)
            yield event

    graph.generate = counted
    async with house.client() as client:
        requests = [{"prompt": "x"}] * 12
        response = await client.post("/v1/inference/batch", json={"requests": requests})
    assert response.json()["num_failed"] == 0
    assert most == 3


async def test_too_many_are_refused(house_of: Built):
    house = house_of(tasks={"max_batch": 2})
    async with house.client() as client:
        response = await client.post("/v1/inference/batch", json={"requests": [{}] * 3})
        assert (response.status_code, response.json()["error"]["param"]) == (400, "requests")
        response = await client.post("/v1/inference/batch", json={"requests": []})
        assert response.status_code == 400


async def test_key_of_few_models_gets_no_other(house: House):
    house.keys.keep("key_1", grants=Grants(models=("fake-model",)))
    calls = house.surface.calls
    answer = await calls.call("key_1", "/v1/inference", b'{"prompt":"x","model":"second-model"}')
    assert answer.status == 404
    assert (await calls.call("key_1", "/v1/inference", b'{"prompt":"x"}')).status == 200
