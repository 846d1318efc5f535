"""Whatever was left undone, passes of the lifecycle make the registry and Serve agree."""

import asyncio
import dataclasses

import pytest

from deployments.errors import StoreUnavailable
from deployments.types import SwitchOrder
from graphs.model_app import app_name
from tests.unit.graphs.lifecycle_bench import Bench
from tests.unit.graphs.registry import RUNNING, load, ready, spec


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
