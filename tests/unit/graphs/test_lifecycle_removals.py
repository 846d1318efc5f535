"""An application goes once nothing wants it, and none that is newer goes with it."""

import pytest

from deployments.types import SwitchOrder
from graphs import lifecycle as module
from graphs.model_app import app_name
from graphs.serve_apps import AppReport
from tests.unit.graphs.lifecycle_bench import Bench
from tests.unit.graphs.registry import RUNNING, load, ready, spec


async def test_unloaded_model_is_deleted_once_and_gone_when_serve_says_so(bench: Bench) -> None:
    state = ready(bench.store)
    name = app_name(state)
    bench.apps.apps[name] = RUNNING
    bench.store.unload("m@1")
    await bench.passes(3)
    assert (bench.phase(), bench.apps.deleted) == ("unloading", [name])
    del bench.apps.apps[name]
    await bench.passes()
    assert bench.phase() == "unloaded"


async def test_requests_are_routed_elsewhere_before_the_application_goes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REROUTE_S", 60.0)
    bench.apps.apps[app_name(ready(bench.store))] = RUNNING
    bench.store.unload("m@1")
    await bench.passes(3)
    assert bench.apps.deleted == []


async def test_application_that_no_model_wants_is_deleted(bench: Bench) -> None:
    bench.apps.apps["model-stray-1"] = RUNNING
    await bench.passes(2)
    assert bench.apps.deleted == ["model-stray-1"]


async def test_earlier_attempts_application_is_never_the_new_ones(bench: Bench) -> None:
    first = bench.store.load(spec())
    await bench.passes()
    bench.apps.apps[app_name(first)] = AppReport("DEPLOY_FAILED", "cheese")
    await bench.passes()
    second = load(bench.store)
    await bench.passes()
    assert second != app_name(first)
    assert second in bench.apps.apps
    assert bench.apps.deleted == [app_name(first)]


async def test_retired_version_goes(bench: Bench) -> None:
    bench.apps.apps = {
        app_name(ready(bench.store)): RUNNING,
        app_name(ready(bench.store, version="2")): RUNNING,
    }
    bench.store.switch(SwitchOrder(alias="chat", to="m@1"), {})
    bench.store.switch(SwitchOrder(alias="chat", to="m@2", drain_s=0), {})
    await bench.passes(2)
    assert (bench.phase("m@1"), bench.phase("m@2")) == ("unloading", "ready")


async def test_stale_pass_deletes_nothing_that_is_newer(bench: Bench) -> None:
    """Its holder slept, another took the lease, loaded a model, and saw it ready."""
    failed = bench.store.load(spec("late"))
    stale = bench.store.read()
    bench.apps.apps[app_name(failed)] = AppReport("DEPLOY_FAILED", "cheese")
    assert bench.store.advance(failed, "ready", is_ready=True)
    newer = app_name(ready(bench.store))
    bench.apps.apps[newer] = RUNNING
    await bench.lifecycle._compare(stale)
    assert bench.apps.deleted == []
    assert (bench.phase("late@1"), bench.phase()) == ("ready", "ready")


async def test_application_that_comes_late_to_a_registry_at_rest_is_deleted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = load(bench.store)
    bench.store.unload("m@1")
    await bench.passes(2)
    assert bench.phase() == "unloaded"
    bench.apps.apps[name] = RUNNING
    await bench.lifecycle.step()
    assert bench.apps.deleted == []
    for period in ("REST_PERIOD_S", "CALM_PERIOD_S"):
        monkeypatch.setattr(module, period, 0.0)
    await bench.lifecycle.step()
    assert bench.apps.deleted == [name]
