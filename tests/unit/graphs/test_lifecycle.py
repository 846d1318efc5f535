"""Whatever was left undone, passes of the lifecycle make the registry and Serve agree."""

import asyncio
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.config import ModelsArgs
from deployments.errors import EngineFailed, InvalidRequest, StoreUnavailable
from deployments.stores.leases import Lease
from deployments.stores.models import ModelStore
from deployments.types import LoadProgress, ModelPhase, ModelSpec, ModelState, SwitchOrder
from graphs import lifecycle as module
from graphs import tenure
from graphs.downloads import Downloads
from graphs.lifecycle import Lifecycle
from graphs.model_app import app_name
from graphs.serve_apps import AppReport
from tests.unit.graphs.registry import RUNNING, FakeApps, opened, ready, spec

OWN = {"own"}


class Bench:
    """A lifecycle over fake applications; every pass looks at everything."""

    def __init__(self, folder: Path, **args: float) -> None:
        self.database, self.store = opened(folder)
        self.apps = FakeApps()
        self.probed: list[str] = []
        self.probe_error: BaseException | None = None
        self.detached: list[str] = []
        self.detach_error: Exception | None = None
        lease = Lease(self.database, "models", tenure.LEASE_S)
        self.args = ModelsArgs(**args)  # type: ignore[arg-type]
        self.lifecycle = self.another(lease)

    def another(self, lease: Lease | None = None) -> Lifecycle:
        lease = lease or Lease(self.database, "models", tenure.LEASE_S)
        return Lifecycle(
            self.store,
            lease,
            self.apps,
            self.args,
            self._probe,
            self._look,
            self._detach,
            OWN,
            Downloads(self.args, self._settle),
        )

    async def _settle(self, state: ModelState, args: ModelsArgs) -> ModelSpec:
        return dataclasses.replace(state.spec, location="/here")

    async def _probe(self, state: ModelState) -> None:
        self.probed.append(state.id)
        if self.probe_error is not None:
            raise self.probe_error

    async def _detach(self, state: ModelState) -> None:
        if self.detach_error is not None:
            raise self.detach_error
        self.detached.append(state.id)

    def _look(self, state: ModelState, report: AppReport) -> LoadProgress:
        return LoadProgress(3, 7, 1.0)

    async def passes(self, number: int = 1) -> None:
        for _ in range(number):
            self.lifecycle._is_calm = False
            await self.lifecycle.step()
            await asyncio.sleep(0.01)
            await self.lifecycle._proofs.idle()

    def phase(self, model: str = "m@1") -> ModelPhase:
        return self.store.read().models[model].phase

    def error(self, model: str = "m@1") -> str:
        return self.store.read().models[model].error


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(module, "REROUTE_S", 0.0)
    monkeypatch.setattr(tenure, "RENEW_S", 0.0)
    made = Bench(tmp_path)
    yield made
    made.database.close()


def load(store: ModelStore, **changes: object) -> str:
    return app_name(store.load(spec(**changes)))


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


async def test_everything_lost_is_loaded_again(bench: Bench) -> None:
    ready(bench.store), ready(bench.store, version="2")
    bench.store.switch(SwitchOrder(alias="chat", to="m@1"), {})
    bench.store.switch(SwitchOrder(alias="chat", to="m@2", canary_percent=30), {})
    before = bench.store.read().aliases
    since = bench.store.read().models["m@1"].ready_at
    await bench.passes(2)
    assert (bench.phase("m@1"), bench.phase("m@2")) == ("loading", "loading")
    assert len(bench.apps.apps) == 2
    bench.apps.apps = dict.fromkeys(bench.apps.apps, RUNNING)
    await bench.passes(2)
    assert (bench.phase("m@1"), bench.phase("m@2")) == ("ready", "ready")
    assert bench.store.read().aliases == before
    assert bench.store.read().models["m@1"].ready_at == since


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


async def test_controller_that_is_away_changes_nothing(bench: Bench) -> None:
    ready(bench.store)
    bench.apps.is_down = True
    with pytest.raises(StoreUnavailable):
        await bench.passes()
    assert bench.phase() == "ready"
    bench.apps.is_down = False
    await bench.passes(2)
    assert bench.apps.num_deployed == 1


async def test_only_the_leases_holder_works(bench: Bench) -> None:
    await bench.passes()
    load(bench.store)
    other = bench.another()
    await other.step()
    assert bench.apps.num_deployed == 0
    await bench.passes()
    assert bench.apps.num_deployed == 1


@pytest.mark.parametrize("kill_at", range(12))
async def test_kill_after_any_step_is_made_good(bench: Bench, kill_at: int) -> None:
    """Each write and each call to Serve is once the last thing that a process does."""
    keep = ready(bench.store, "keep")
    bench.apps.apps[app_name(keep)] = RUNNING
    bench.store.load(spec(version="1"))
    bench.store.load(spec(version="2"))
    bench.store.unload("m@2")
    count = 0

    class Killed(BaseException):
        pass

    def dying(method):
        async def call(*args):
            nonlocal count
            result = await method(*args)
            count += 1
            if count == kill_at:
                raise Killed
            return result

        return call

    for name in ("deploy", "delete"):
        setattr(bench.apps, name, dying(getattr(bench.apps, name)))
    try:
        for _ in range(8):
            await bench.passes()
            bench.apps.apps = {
                name: RUNNING if report.status == "DEPLOYING" else report
                for name, report in bench.apps.apps.items()
                if report.status != "DELETING"
            }
    except Killed:
        pass
    bench.lifecycle = bench.another()
    bench.lifecycle._tenure._lease._owner = "the next process"
    with bench.database.write() as connection:
        connection.exec_driver_sql("DELETE FROM leases")
    for _ in range(6):
        await bench.passes()
        bench.apps.apps = {
            name: RUNNING if report.status == "DEPLOYING" else report
            for name, report in bench.apps.apps.items()
            if report.status != "DELETING"
        }
    phases = {one.id: one.phase for one in bench.store.read().models.values()}
    assert phases == {"keep@1": "ready", "m@1": "ready", "m@2": "unloaded"}
    wanted = {app_name(s) for s in bench.store.read().models.values() if s.phase == "ready"}
    assert set(bench.apps.apps) == wanted


async def test_calm_registry_is_not_compared_again(bench: Bench) -> None:
    await bench.lifecycle.step()
    bench.apps.is_down = True
    await bench.lifecycle.step()
    bench.store.load(dataclasses.replace(spec(), version="9"))
    with pytest.raises(StoreUnavailable):
        await bench.lifecycle.step()


async def test_database_that_is_lost_in_mid_load_is_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = load(bench.store)
    await bench.passes()
    bench.apps.apps[name] = RUNNING

    def lost(*_: object, **__: object) -> None:
        raise StoreUnavailable("the database did not answer")

    with monkeypatch.context() as patched:
        for method in ("revision", "read", "advance"):
            patched.setattr(bench.store, method, lost)
        running = asyncio.ensure_future(bench.lifecycle.run())
        await asyncio.sleep(0.1)
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert (bench.phase(), bench.apps.num_deployed) == ("loading", 1)
    await bench.passes(3)
    assert (bench.phase(), bench.apps.deleted) == ("ready", [])


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


async def test_time_in_which_nothing_ran_is_not_a_slow_start(bench: Bench) -> None:
    name = load(bench.store)
    with bench.database.write() as connection:
        connection.exec_driver_sql("UPDATE models SET changed_at = 1")
    await bench.passes()
    bench.apps.apps[name] = RUNNING
    await bench.passes(2)
    assert bench.phase() == "ready"


async def test_slow_start_tells_why_its_probe_failed(bench: Bench) -> None:
    name = load(bench.store)
    await bench.passes()
    bench.apps.apps[name] = RUNNING
    bench.probe_error = EngineFailed("the model is asleep")
    await bench.passes(2)
    bench.lifecycle._args = ModelsArgs(start_timeout_s=1e-6)
    await bench.passes()
    assert (bench.phase(), "the model is asleep" in bench.error()) == ("failed", True)


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
