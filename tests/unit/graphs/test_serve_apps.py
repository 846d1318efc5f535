"""A controller that says nothing costs a caller its patience, and nobody else a thread."""

import asyncio
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from deployments.config import ModelsArgs
from deployments.errors import StoreUnavailable
from graphs import model_app
from graphs import serve_apps as module
from graphs.serve_apps import AppReport, ServeApps

REPLICA = {"state": "RUNNING", "node_ip": "10.0.0.1", "pid": 7}
STARTING = {"state": "STARTING", "node_ip": "10.0.0.1", "pid": None}
DEPLOYMENT = {"replicas": [REPLICA, STARTING], "message": "", "target_num_replicas": 2}
APP = {"status": "DEPLOYING", "message": "", "deployments": {"Generator": DEPLOYMENT}}


class Controller:
    """Answers once it is released."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.num_asked = 0
        self.error: Exception | None = None
        self.deleted: list[str] = []

    def get_serve_details(self) -> dict[str, Any]:
        self.num_asked += 1
        assert self.released.wait(30)
        if self.error is not None:
            raise self.error
        return {"applications": {"ragserve": APP, "model-m-1": APP}}

    def delete_apps(self, names: list[str], *, blocking: bool) -> None:
        assert not blocking
        self.deleted += names


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> Iterator[Controller]:
    made = Controller()
    monkeypatch.setattr(module, "_client", lambda: made)
    yield made
    made.released.set()


async def test_reports_are_of_the_applications_of_models(controller: Controller) -> None:
    controller.released.set()
    expected = AppReport("DEPLOYING", "", 2, 1, (("10.0.0.1", 7),))
    assert await ServeApps(ModelsArgs()).reports() == {"model-m-1": expected}
    targets = await ServeApps(ModelsArgs()).targets()
    assert targets == {("ragserve", "Generator"): 2, ("model-m-1", "Generator"): 2}


async def test_models_of_other_graphs_are_none_of_ours(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.released.set()
    names = ["model-m-1-aaaaaa", "model-m-1-bbbbbb", "model-m-1"]
    details = {"applications": dict.fromkeys(names, APP)}
    monkeypatch.setattr(controller, "get_serve_details", lambda: details)
    monkeypatch.setattr(model_app, "own_suffix", lambda: "-bbbbbb")
    assert list(await ServeApps(ModelsArgs()).reports()) == ["model-m-1-bbbbbb"]


async def test_controller_that_says_nothing_is_not_waited_for(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.01)
    apps = ServeApps(ModelsArgs())
    for _ in range(3 * module.NUM_THREADS):
        with pytest.raises(StoreUnavailable):
            await apps.reports()
    assert controller.num_asked == module.NUM_THREADS, "what nobody waits for is not asked"
    assert await asyncio.to_thread(lambda: "free") == "free"
    monkeypatch.setattr(module, "ANSWER_S", 30.0)
    controller.released.set()
    assert list(await apps.reports()) == ["model-m-1"]


async def test_controller_that_died_is_asked_again(controller: Controller) -> None:
    controller.released.set()
    controller.error = ActorDiedError()
    apps = ServeApps(ModelsArgs())
    with pytest.raises(StoreUnavailable, match="asked again"):
        await apps.reports()
    controller.error = None
    assert list(await apps.reports()) == ["model-m-1"]


async def test_deletion_is_not_waited_for(controller: Controller) -> None:
    await ServeApps(ModelsArgs()).delete("model-m-1")
    assert controller.deleted == ["model-m-1"]


@pytest.mark.parametrize("value", ["RUNNING", SimpleNamespace(value="RUNNING")])
def test_states_are_texts_or_enumerations(value: Any) -> None:
    assert module.plain(value) == "RUNNING"
