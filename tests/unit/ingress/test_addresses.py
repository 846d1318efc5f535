"""Lists of addresses: of everybody, of a path, of a key, and of who scrapes."""

from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from deployments.config import AddressArgs, IngressArgs
from deployments.ingress.app import build_app
from deployments.types.access import Grants
from tests.unit.ingress.conftest import (
    OPERATOR,
    UNTOUCHED,
    FakeFactors,
    FakeKeys,
    extract,
    in_process,
)
from tests.unit.ingress.fake_graph import FakeGraph
from tests.unit.ingress.test_key_graph import Keys

SECRET = "5ec2e7"


async def status(
    address: str, path: str = "/v1/models", keys: Any = None, **lists: Any
) -> httpx.Response:
    app = build_app(
        FakeGraph(),
        keys or FakeKeys(),
        IngressArgs(second_factor="enrolled", addresses=AddressArgs(**lists)),
        extract=extract,
        factors=FakeFactors(),
        replays=UNTOUCHED,
        edge_secret=SECRET,
    )
    async with in_process(app) as client:
        headers = {"x-ragserve-peer": f"{SECRET} {address}", "x-forwarded-for": "10.0.0.1"}
        return await client.get(path, headers=headers)


@pytest.mark.parametrize(
    ("address", "lists", "is_let_in"),
    [
        ("203.0.113.9", {}, True),
        ("203.0.113.9", {"allow": ["10.0.0.0/8"]}, False),
        ("10.1.2.3", {"allow": ["10.0.0.0/8"]}, True),
        ("::ffff:10.1.2.3", {"allow": ["10.0.0.0/8"]}, True),
        ("2001:db8::9", {"allow": ["2001:db8::/64"]}, True),
        ("2001:db8:0:1::9", {"allow": ["2001:db8::/64"]}, False),
        ("10.1.2.3", {"allow": ["10.0.0.0/8"], "deny": ["10.1.0.0/16"]}, False),
        ("::ffff:10.1.2.3", {"deny": ["10.1.0.0/16"]}, False),
        ("10.1.2.3", {"routes": {"/v1/models": ["10.1.2.3"]}}, True),
        ("10.1.2.4", {"routes": {"/v1/models": ["10.1.2.3"]}}, False),
        ("10.1.2.4", {"routes": {"/v1/": ["10.1.2.3"], "/v1/models": ["10.1.2.4"]}}, True),
        ("10.1.2.4", {"routes": {"/v1/data": []}}, True),
        ("nonsense", {"allow": ["0.0.0.0/0", "2000::/3"]}, False),
    ],
)
async def test_lists_of_everybody_and_of_paths(
    address: str, lists: dict[str, Any], is_let_in: bool
) -> None:
    response = await status(address, **lists)
    assert response.status_code == (200 if is_let_in else 403)
    if not is_let_in:
        assert response.json()["error"]["message"] == "this is not allowed from your address"


async def test_address_is_asked_before_the_key() -> None:
    class Untouched:
        async def verify(self, bearer: str) -> Any:
            raise AssertionError

    response = await status("203.0.113.9", keys=Untouched(), allow=["10.0.0.0/8"])
    assert response.status_code == 403


async def test_health_is_told_to_everybody() -> None:
    assert (await status("203.0.113.9", "/v1/health", allow=["10.0.0.0/8"])).status_code == 200
    assert (await status("203.0.113.9", "/docs", allow=["10.0.0.0/8"])).status_code == 403


async def test_key_works_from_its_addresses_only() -> None:
    keys = Keys(Grants(addresses=("203.0.113.0/24", "2001:db8::1")))
    for address, code in (("203.0.113.9", 200), ("203.0.114.9", 403), ("2001:db8::1", 200)):
        assert (await status(address, keys=keys)).status_code == code


async def test_metrics_without_a_key_from_listed_addresses_only() -> None:
    app = build_app(
        FakeGraph(),
        FakeKeys(),
        IngressArgs(second_factor="enrolled", addresses=AddressArgs(metrics=("10.0.0.5",))),
        extract=extract,
        factors=FakeFactors(),
        replays=UNTOUCHED,
        edge_secret=SECRET,
    )
    async with in_process(app) as client:
        del client.headers["authorization"]
        for address, path, code in (
            ("10.0.0.5", "/v1/metrics", 200),
            ("10.0.0.6", "/v1/metrics", 401),
            ("10.0.0.5", "/v1/models", 401),
        ):
            headers = {"x-ragserve-peer": f"{SECRET} {address}"}
            assert (await client.get(path, headers=headers)).status_code == code
        assert (await client.get("/v1/metrics", headers=OPERATOR)).status_code == 200


@pytest.mark.parametrize(
    "lists",
    [
        {"allow": ["10.0.0.1/8"]},
        {"deny": ["localhost"]},
        {"routes": {"/v1": ["10.0.0.0/33"]}},
        {"trusted_proxies": [""]},
    ],
)
def test_slip_in_a_list_keeps_it_from_starting(lists: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AddressArgs(**lists)
