"""A load is deployed, probed and then ready; or it has failed, and says why."""

import asyncio

import pytest

from deployments.config import ModelsArgs
from deployments.errors import EngineFailed, InvalidRequest, StoreUnavailable
from deployments.types import LoadProgress, ModelState, SwitchOrder
from graphs.model_app import app_name
from graphs.serve_apps import AppReport
from tests.unit.graphs.lifecycle_bench import Bench
from tests.unit.graphs.registry import RUNNING, load, ready


async def test_load_is_deployed_probed_and_ready(bench: Bench) -> None:
    name = load(bench.store)
    await bench.passes()
    assert list(bench.apps.apps) == [name]
    await bench.passes(2)
    assert (bench.phase(), bench.probed, bench.apps.num_deployed) == ("loading", [], 1)
    assert bench.store.read().models["m@1"].progress == LoadProgress(3, 7, 1.0)
    bench.apps.apps[name] = RUNNING
    await bench.passes(2)
    assert (bench.phase(), bench.probed) == ("ready", ["m@1"])


async def test_model_that_does_not_answer_its_probe_is_not_ready(bench: Bench) -> None:
    name = load(bench.store)
    await bench.passes()
    bench.apps.apps[name] = RUNNING
    bench.probe_error = EngineFailed("the model failed")
    await bench.passes(3)
    assert bench.phase() == "loading"
    bench.probe_error = None
    await bench.passes(3)
    assert bench.phase() == "ready"


async def test_failed_start_is_told_and_cleaned_up(bench: Bench) -> None:
    name = load(bench.store)
    await bench.passes()
    bench.apps.apps[name] = AppReport("DEPLOY_FAILED", "the weights are made of cheese")
    await bench.passes()
    assert (bench.phase(), bench.error()) == ("failed", "the weights are made of cheese")
    assert bench.apps.deleted == [name]


async def test_slow_start_fails_when_its_time_is_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = load(bench.store)
    await bench.passes()
    bench.lifecycle._args = ModelsArgs(start_timeout_s=1e-6)
    await bench.passes()
    assert bench.phase() == "failed"
    assert "did not answer within" in bench.error()
    assert bench.apps.deleted == [name]


async def test_slow_start_tells_why_its_probe_failed(bench: Bench) -> None:
    name = load(bench.store)
    await bench.passes()
    bench.apps.apps[name] = RUNNING
    bench.probe_error = EngineFailed("the model is asleep")
    await bench.passes(2)
    bench.lifecycle._args = ModelsArgs(start_timeout_s=1e-6)
    await bench.passes()
    assert (bench.phase(), "the model is asleep" in bench.error()) == ("failed", True)


async def test_time_in_which_nothing_ran_is_not_a_slow_start(bench: Bench) -> None:
    name = load(bench.store)
    with bench.database.write() as connection:
        connection.exec_driver_sql("UPDATE models SET changed_at = 1")
    await bench.passes()
    bench.apps.apps[name] = RUNNING
    await bench.passes(2)
    assert bench.phase() == "ready"


async def test_arguments_that_are_none_fail_the_load(bench: Bench) -> None:
    bench.apps.error = InvalidRequest("context_length: must be greater")
    load(bench.store)
    await bench.passes()
    assert (bench.phase(), bench.error()) == ("failed", "context_length: must be greater")


async def test_failed_load_leaves_the_old_version_alone(bench: Bench) -> None:
    old = ready(bench.store)
    bench.apps.apps[app_name(old)] = RUNNING
    bench.store.switch(SwitchOrder(alias="chat", to="m@1"), {})
    name = load(bench.store, version="2")
    await bench.passes()
    bench.apps.apps[name] = AppReport("DEPLOY_FAILED", "cheese")
    await bench.passes(2)
    assert (bench.phase("m@1"), bench.phase("m@2")) == ("ready", "failed")
    assert bench.apps.apps[app_name(old)] == RUNNING
    assert bench.store.read().aliases["chat"].main == "m@1"


@pytest.mark.parametrize("error", [ValueError("bad"), StoreUnavailable("not now")])
async def test_model_that_cannot_be_deployed_holds_up_no_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    deploy = bench.apps.deploy

    async def refused(state: ModelState) -> None:
        if state.id == "bad@1":
            raise error
        await deploy(state)

    monkeypatch.setattr(bench.apps, "deploy", refused)
    load(bench.store, name="bad")
    name = load(bench.store)
    await bench.passes()
    assert list(bench.apps.apps) == [name]
    assert bench.phase("bad@1") == "loading"


async def test_probe_that_is_cancelled_is_made_again(bench: Bench) -> None:
    name = load(bench.store)
    await bench.passes()
    bench.apps.apps[name] = RUNNING
    bench.probe_error = asyncio.CancelledError()
    await bench.passes(2)
    assert bench.phase() == "loading"
    bench.probe_error = None
    await bench.passes(2)
    assert (bench.phase(), bench.probed) == ("ready", ["m@1", "m@1"])


async def test_probe_of_a_model_that_is_unloaded_is_stopped(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = load(bench.store)
    await bench.passes()
    bench.apps.apps[name] = RUNNING
    stopped = asyncio.Event()

    async def endless(_: ModelState) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    monkeypatch.setattr(bench.lifecycle._proofs, "_probe", endless)
    bench.lifecycle._is_calm = False
    await bench.lifecycle.step()
    await asyncio.sleep(0)
    bench.store.unload("m@1")
    bench.lifecycle._is_calm = False
    await bench.lifecycle.step()
    await asyncio.wait_for(stopped.wait(), 5)
    assert bench.phase() == "unloading"


async def test_ready_model_that_serve_gave_up_is_loaded_once_more(bench: Bench) -> None:
    """As after a kill of the controller and a replica that then cannot start."""
    name = app_name(ready(bench.store))
    bench.apps.apps[name] = AppReport("DEPLOY_FAILED", "cheese")
    await bench.passes(2)
    assert (bench.phase(), bench.apps.apps[name].status) == ("loading", "DEPLOYING")
    bench.apps.apps[name] = AppReport("DEPLOY_FAILED", "cheese again")
    await bench.passes()
    assert (bench.phase(), bench.error()) == ("failed", "cheese again")
