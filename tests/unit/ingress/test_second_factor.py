"""One-time codes: every operation that can hurt asks for one, last of all, and others do not."""

from typing import Any

import httpx
import pytest

from deployments.config import IngressArgs
from deployments.ingress.access import RULES, SENSITIVE
from deployments.ingress.app import build_app
from deployments.types import Training, TuningSpec, TuningState
from tests.unit.ingress.conftest import (
    CODE,
    OPERATOR,
    UNTOUCHED,
    Build,
    FakeFactors,
    FakeKeys,
    extract,
    in_process,
)
from tests.unit.ingress.fake_graph import FakeGraph
from tests.unit.ingress.test_models import READY
from tests.unit.ingress.test_tenants import documents

KEY_ID = "key_3"
"""Of `OPERATOR`."""

ENDED = TuningState(
    id=f"tun_{'0' * 32}",
    spec=TuningSpec(
        name="m", version="1", base="b", location="b", training=Training(), num_steps=1
    ),
    phase="failed",
    created_at=0.0,
)
Ask = tuple[str, str, Any]
ASKS: dict[str, Ask] = {
    "createKey": ("POST", "/v1/keys", {"name": "x"}),
    "rotateKey": ("POST", "/v1/keys/{key}/rotate", {}),
    "revokeKey": ("DELETE", "/v1/keys/{key}", None),
    "removeTotp": ("DELETE", "/v1/totp", None),
    "erase": ("POST", "/v1/data/delete", {"collection": "docs", "ids": ["a"]}),
    "finetuneModel": (
        "POST",
        "/v1/models/finetune",
        {"model_id": "m", "base": "b", "examples": [{"prompt": "a", "completion": "b"}] * 2},
    ),
    "deleteTuning": ("DELETE", f"/v1/models/finetune/{ENDED.id}", None),
    "unloadModel": ("POST", "/v1/models/unload", {"model_id": "m@1", "force": True}),
}


class Desk:
    """The application, asked by an operator."""

    def __init__(self, mode: str = "required", *enrolled: str) -> None:
        self.keys, self.factors, self.graph = FakeKeys(), FakeFactors(*enrolled), FakeGraph()
        self.graph.stored = {"docs": documents()}
        self.graph.tuning_states = [ENDED]
        self.graph.states = {"m@1": [READY]}
        args = IngressArgs.model_validate({"second_factor": mode})
        self._app = build_app(
            self.graph, self.keys, args, extract=extract, factors=self.factors, replays=UNTOUCHED
        )

    async def ask(self, ask: Ask, code: str | None = None) -> httpx.Response:
        key, _ = await self.keys.create("old", is_admin=False)
        method, path, body = ask
        headers = {**OPERATOR, **({} if code is None else {"x-second-factor": code})}
        async with in_process(self._app) as client:
            return await client.request(method, path.format(key=key.id), json=body, headers=headers)


def error_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def test_every_sensitive_operation_is_tried_here() -> None:
    assert ASKS.keys() == SENSITIVE | {"unloadModel"}
    assert RULES.keys() >= SENSITIVE


@pytest.mark.parametrize("operation", ASKS)
async def test_a15_operation_that_can_hurt_asks_for_a_code(operation: str) -> None:
    desk = Desk("required", KEY_ID)
    before = (dict(desk.keys.made), dict(desk.graph.stored["docs"]), desk.graph.tuning_states[:])
    missing = await desk.ask(ASKS[operation])
    assert error_of(missing) == (403, "second_factor_required")
    wrong = await desk.ask(ASKS[operation], "000000")
    assert error_of(wrong) == (403, "second_factor_invalid")
    made = {id_ for id_, key in desk.keys.made.items() if key.name != "old" or key.revoked_at}
    assert made == set(before[0])
    assert (desk.graph.stored["docs"], desk.graph.tuning_states) == before[1:]
    assert (await desk.ask(ASKS[operation], CODE)).status_code < 300


@pytest.mark.parametrize("operation", ASKS)
async def test_key_without_a_factor_must_enrol_unless_it_is_let_through(operation: str) -> None:
    refused = await Desk("required").ask(ASKS[operation], CODE)
    assert error_of(refused) == (403, "second_factor_required")
    if operation != "removeTotp":
        assert (await Desk("enrolled").ask(ASKS[operation])).status_code < 300
    enrolled = await Desk("enrolled", KEY_ID).ask(ASKS[operation])
    assert error_of(enrolled) == (403, "second_factor_required")


async def test_unload_without_force_needs_no_code() -> None:
    ask = ("POST", "/v1/models/unload", {"model_id": "m@1"})
    assert (await Desk("required").ask(ask)).status_code < 300


async def test_body_that_is_refused_costs_no_code() -> None:
    desk = Desk("required", KEY_ID)
    for method, path, body in (
        ("POST", "/v1/keys", {"name": ""}),
        ("POST", "/v1/data/delete", {"collection": "docs"}),
        ("POST", "/v1/models/finetune", {"model_id": "m"}),
    ):
        assert (await desk.ask((method, path, body), CODE)).status_code == 400
    assert desk.factors.num_used == 0


async def test_factor_is_enrolled_and_confirmed(build: Build) -> None:
    async with in_process(build()) as client:
        assert (await client.get("/v1/totp")).json()["enrolled"] is False
        made = await client.post("/v1/totp/enroll")
        assert made.status_code == 201
        told = made.json()
        assert told["uri"].startswith("otpauth://")
        assert told["qr_svg"].startswith("<svg")
        assert told["recovery_codes"] == ["aaaa-bbbb"]
        assert made.headers["cache-control"] == "no-store"
        wrong = await client.post("/v1/totp/confirm", json={"code": "000000"})
        assert error_of(wrong) == (403, "second_factor_invalid")
        right = await client.post("/v1/totp/confirm", json={"code": CODE})
        assert right.json()["enrolled"] is True
        assert error_of(await client.post("/v1/totp/enroll")) == (409, "conflict")
