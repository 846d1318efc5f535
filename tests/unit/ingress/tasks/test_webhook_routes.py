"""The routes of webhooks: the secret, the log, one more delivery, URLs that are none."""

import base64

import httpx
import pytest

from deployments.stores.webhooks import WebhookStore
from deployments.types.access import Grants
from tests.unit.ingress.conftest import FakeKey
from tests.unit.ingress.tasks.conftest import Built, House

URL = "https://hooks.example/told"
ASK = {"prompt": "one two", "not_before": "2100-01-01T00:00:00Z"}


async def end(client: httpx.AsyncClient, **body: object) -> str:
    """Have a task end of which somebody is told; return its id."""
    response = await client.post("/v1/inference/async", json={**ASK, "webhook": URL, **body})
    assert response.status_code == 202, response.text
    task_id = response.json()["task_id"]
    assert (await client.delete(f"/v1/tasks/{task_id}")).json()["status"] == "CANCELLED"
    return task_id


async def test_secret_is_each_tenants_own(house: House):
    secrets = []
    for tenant in (None, "acme"):
        async with house.client(tenant) as client:
            found = [(await client.get("/v1/webhooks/secret")).json() for _ in range(2)]
        assert found[0] == found[1]
        secrets.append(found[0]["secret"])
    assert secrets[0] != secrets[1]
    assert all(len(base64.b64decode(one.removeprefix("whsec_"))) == 32 for one in secrets)


async def test_url_that_is_none_is_refused_at_once(house: House):
    urls = ("http://hooks.example/", "https://u:p@hooks.example/", "https://hooks.example:22/", "x")
    async with house.client() as client:
        for url in urls:
            response = await client.post("/v1/inference/async", json={**ASK, "webhook": url})
            assert (response.status_code, response.json()["error"]["param"]) == (400, "webhook")
        assert (await client.get("/v1/tasks")).json()["data"] == []


async def test_operator_may_allow_http(house_of: Built):
    house = house_of(tasks={"webhooks": {"allow_http": True}})
    async with house.client() as client:
        await end(client, webhook="http://hooks.example/")


async def test_log_is_listed_by_pages_and_by_task(house: House):
    async with house.client() as client:
        ids = [await end(client) for _ in range(3)]
        url = "/v1/webhooks/deliveries"
        first = (await client.get(url, params={"limit": 2})).json()
        rest = (await client.get(url, params={"after": first["data"][-1]["id"]})).json()
        found = [*first["data"], *rest["data"]]
        assert [one["task_id"] for one in found] == ids[::-1]
        assert (first["has_more"], rest["has_more"]) == (True, False)
        own = (await client.get(url, params={"task_id": ids[1]})).json()["data"]
        assert own == [found[1]]
        assert (await client.get(url, params={"task_id": "x"})).status_code == 400
    [one] = own
    assert (one["type"], one["status"], one["url"]) == ("task.cancelled", "PENDING", URL)
    assert (one["attempts"], one["error"], one["completed_at"]) == (0, None, None)
    async with house.client("acme") as client:
        assert (await client.get(url)).json()["data"] == []
        again = await client.post(f"{url}/{one['id']}/redeliver")
        assert again.status_code == 404


async def test_what_was_given_up_is_delivered_once_more(house: House):
    store = WebhookStore(house.database)
    async with house.client() as client:
        await end(client)
        [delivery] = store.claim(1, {}, 1)
        url = f"/v1/webhooks/deliveries/{delivery.id}/redeliver"
        assert (await client.post(url)).status_code == 409
        store.fail(delivery, "http_410", 410, is_final=True)
        given_up = (await client.get("/v1/webhooks/deliveries")).json()["data"][0]
        assert (given_up["status"], given_up["http_status"]) == ("FAILED", 410)
        assert given_up["next_attempt_at"] is None
        response = await client.post(url)
        assert (response.status_code, response.json()["status"]) == (202, "PENDING")
        assert [one.id for one in store.claim(1, {}, 1)] == [delivery.id]


async def test_key_that_is_held_to_some_models_sees_its_own_alone(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    async with house.client() as client:
        await end(client)
        url = "/v1/webhooks/deliveries"
        [one] = (await client.get(url)).json()["data"]

        async def held(bearer: str) -> FakeKey:
            return FakeKey(owner, grants=Grants(models=("fake-model",)))

        monkeypatch.setattr(house.keys, "verify", held)
        owner = FakeKey().id
        assert (await client.get(url)).json()["data"] == [one]
        owner = "key_9"
        assert (await client.get(url)).json()["data"] == []
        assert (await client.post(f"{url}/{one['id']}/redeliver")).status_code == 404
