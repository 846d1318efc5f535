"""`/v1/keys` over a real store: made, used, replaced, revoked, and never more than one's own."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.ingress.app import build_app
from deployments.ingress.auth import ThreadedKeys
from deployments.stores.database import Database
from deployments.stores.keys import KeyStore
from deployments.stores.migrations import migrate
from deployments.types.access import SCOPES, Grants
from tests.unit.ingress.conftest import ARGS, UNTOUCHED, FakeFactors, extract, in_process
from tests.unit.ingress.fake_graph import FakeGraph

PATH = "/v1/keys"
GRANTS = {
    "scopes": ["inference", "data"],
    "models": ["chat"],
    "collections": ["docs"],
    "addresses": ["203.0.113.0/24"],
    "limits": {"requests_per_minute": 60},
}


class Desk:
    """The routes, asked by whoever is named."""

    def __init__(self, folder: Path) -> None:
        url = f"sqlite:///{folder / 'keys.db'}"
        migrate(url)
        self._database = Database(url)
        self.store = KeyStore(self._database, folder)
        self._app = build_app(
            FakeGraph(),
            ThreadedKeys(self.store),
            ARGS,
            extract=extract,
            factors=FakeFactors(),
            replays=UNTOUCHED,
        )
        self.admin = self.store.create("root", is_admin=True)[1]

    def manager(self, tenant: str = "acme", **grants: Any) -> str:
        scopes = ("admin", "inference", "data")
        return self.store.create("manager", tenant=tenant, grants=Grants(scopes=scopes, **grants))[
            1
        ]

    async def ask(
        self, bearer: str, method: str, path: str = "", body: Any = None
    ) -> httpx.Response:
        async with in_process(self._app) as client:
            headers = {"authorization": f"Bearer {bearer}"}
            return await client.request(method, PATH + path, json=body, headers=headers)

    def close(self) -> None:
        self._database.close()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.close()


async def test_made_key_is_shown_once_and_works(desk: Desk) -> None:
    body = {"name": "dify", "tenant": "acme", "expires_at": "2099-01-01T00:00:00Z", **GRANTS}
    response = await desk.ask(desk.admin, "POST", body=body)
    assert response.status_code == 201
    made = response.json()
    bearer = made.pop("key")
    assert desk.store.verify(bearer).id == made["id"]
    assert made["expires_at"] == "2099-01-01T00:00:00.000000Z"
    assert {name: made[name] for name in GRANTS} == GRANTS | {
        "limits": {
            "requests_per_minute": 60,
            "tokens_per_minute": None,
            "tokens_per_day": None,
            "max_concurrent": None,
        }
    }
    for path in ("", f"/{made['id']}"):
        shown = await desk.ask(desk.admin, "GET", path)
        assert bearer not in shown.text
        assert made in ([shown.json()] if path else shown.json()["data"])


async def test_list_pages(desk: Desk) -> None:
    for number in range(4):
        desk.store.create(f"k{number}")
    first = (await desk.ask(desk.admin, "GET", "?limit=3")).json()
    rest = (await desk.ask(desk.admin, "GET", f"?after={first['data'][-1]['id']}")).json()
    assert (first["has_more"], rest["has_more"]) == (True, False)
    names = [key["name"] for key in [*first["data"], *rest["data"]]]
    assert names == ["root", "k0", "k1", "k2", "k3"]


async def test_admin_has_every_scope(desk: Desk) -> None:
    made = (await desk.ask(desk.admin, "POST", body={"name": "x", "admin": True})).json()
    assert (made["admin"], made["scopes"]) == (True, list(SCOPES))


async def test_rotated_and_revoked(desk: Desk) -> None:
    key, bearer = desk.store.create("x")
    rotated = await desk.ask(desk.admin, "POST", f"/{key.id}/rotate", {"overlap_s": 60})
    assert rotated.status_code == 201
    new = rotated.json()
    assert {desk.store.verify(one).id for one in (bearer, new["key"])} == {key.id, new["id"]}
    revoked = await desk.ask(desk.admin, "DELETE", f"/{key.id}")
    assert revoked.json()["revoked_at"]
    again = await desk.ask(desk.admin, "POST", f"/{key.id}/rotate", {})
    assert again.status_code == 409
    assert (await desk.ask(bearer, "GET")).status_code == 401


async def test_last_admin_stays(desk: Desk) -> None:
    [key] = desk.store.list()
    assert (await desk.ask(desk.admin, "DELETE", f"/{key.id}")).status_code == 409


async def test_foreign_key_is_one_that_is_missing(desk: Desk) -> None:
    foreign = desk.store.create("x", tenant="beta")[0].id
    missing = f"key_{'0' * 32}"
    manager = desk.manager()
    for method, path, body in (
        ("GET", "/{}", None),
        ("POST", "/{}/rotate", {}),
        ("DELETE", "/{}", None),
    ):
        answers = [
            await desk.ask(manager, method, path.format(id_), body) for id_ in (foreign, missing)
        ]
        assert [one.status_code for one in answers] == [404, 404]
        messages = [one.json()["error"]["message"] for one in answers]
        assert messages[0] == messages[1]
    assert [key["tenant"] for key in (await desk.ask(manager, "GET")).json()["data"]] == ["acme"]


@pytest.mark.parametrize(
    "more",
    [
        {"admin": True},
        {"tenant": "beta"},
        {"scopes": ["data", "models"]},
        {"collections": None},
        {"collections": ["docs", "other"]},
        {"models": None},
        {"addresses": ["0.0.0.0/0"]},
    ],
)
async def test_nobody_gives_away_more_than_they_have(desk: Desk, more: dict[str, Any]) -> None:
    manager = desk.manager(collections=("docs",), models=("chat",), addresses=("127.0.0.1/32",))
    own = {
        "name": "x",
        "scopes": ["data"],
        "collections": ["docs"],
        "models": ["chat"],
        "addresses": ["127.0.0.1/32"],
    }
    assert (await desk.ask(manager, "POST", body=own)).status_code == 201
    refused = await desk.ask(manager, "POST", body=own | more)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")


async def test_nobody_takes_over_a_key_that_covers_more(desk: Desk) -> None:
    admin = desk.store.create("a", is_admin=True, tenant="acme")[0].id
    wide = desk.store.create("w", tenant="acme")[0].id
    manager = desk.manager()
    for id_ in (admin, wide):
        for method, path, body in (("POST", f"/{id_}/rotate", {}), ("DELETE", f"/{id_}", None)):
            assert (await desk.ask(manager, method, path, body)).status_code == 403


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x\0"}, "name"),
        ({"name": "x", "scopes": ["everything"]}, "scopes"),
        ({"name": "x", "addresses": ["10.0.0.1/8"]}, "addresses"),
        ({"name": "x", "limits": {"requests_per_minute": 0}}, "limits"),
        ({"name": "x", "expires_at": "soon"}, "expires_at"),
        ({"name": "x", "tenant": "../x"}, "tenant"),
    ],
)
async def test_bad_field_is_named(desk: Desk, body: dict[str, Any], param: str) -> None:
    response = await desk.ask(desk.admin, "POST", body=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith(param)
