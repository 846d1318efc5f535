"""Adapters come and go with passes of the lifecycle, and never without their base."""

import pytest

from deployments.errors import EngineFailed, UnreadableModel
from graphs.model_app import app_name
from tests.unit.graphs.lifecycle_bench import Bench
from tests.unit.graphs.registry import RUNNING, ready, spec

ADAPTER = "m:a@1"


@pytest.fixture
def bench(bench: Bench) -> Bench:
    bench.apps.apps[app_name(ready(bench.store))] = RUNNING
    return bench


async def loaded(bench: Bench) -> None:
    bench.store.load(spec("m:a", base="m@1"))
    await bench.passes(2)
    assert bench.phase(ADAPTER) == "ready"


async def test_adapter_is_probed_and_ready_without_an_application(bench: Bench) -> None:
    await loaded(bench)
    assert (bench.probed, bench.apps.num_deployed) == ([ADAPTER], 0)
    assert list(bench.apps.apps.values()) == [RUNNING]


async def test_adapter_of_the_configurations_model_needs_no_row_of_it(bench: Bench) -> None:
    bench.store.load(spec("own:a", base="own"))
    await bench.passes(2)
    assert bench.phase("own:a@1") == "ready"


async def test_adapter_that_cannot_be_read_any_more_has_failed(bench: Bench) -> None:
    bench.store.load(spec("m:a", base="m@1"))
    bench.probe_error = EngineFailed("try again")
    await bench.passes(3)
    assert bench.phase(ADAPTER) == "loading"
    bench.probe_error = UnreadableModel("it is cheese")
    await bench.passes(3)
    assert (bench.phase(ADAPTER), bench.error(ADAPTER)) == ("failed", "it is cheese")
    assert bench.phase() == "ready"


async def test_adapter_waits_for_its_base_and_is_proved_again(bench: Bench) -> None:
    await loaded(bench)
    bench.apps.apps.clear()  # everything was lost
    await bench.passes(3)
    assert (bench.phase(), bench.phase(ADAPTER)) == ("loading", "loading")
    assert bench.probed == [ADAPTER]
    for name in bench.apps.apps:
        bench.apps.apps[name] = RUNNING
    await bench.passes(5)
    assert (bench.phase(), bench.phase(ADAPTER)) == ("ready", "ready")
    assert bench.probed == [ADAPTER, "m@1", ADAPTER]


async def test_adapter_of_a_base_that_fails_has_failed(bench: Bench) -> None:
    await loaded(bench)
    state = bench.store.read().models["m@1"]
    assert bench.store.advance(state, "failed", error="gone")
    await bench.passes(3)
    assert bench.phase(ADAPTER) == "failed"
    assert "base" in bench.error(ADAPTER)


async def test_unloaded_adapter_is_given_up_by_the_replicas(bench: Bench) -> None:
    await loaded(bench)
    bench.store.unload(ADAPTER)
    bench.detach_error = EngineFailed("not now")
    await bench.passes()
    assert bench.phase(ADAPTER) == "unloading"
    bench.detach_error = None
    await bench.passes(2)
    assert (bench.phase(ADAPTER), bench.detached) == ("unloaded", [ADAPTER])
    assert (bench.phase(), bench.apps.deleted) == ("ready", [])


async def test_adapters_go_with_their_base(bench: Bench) -> None:
    await loaded(bench)
    bench.store.unload("m@1", force=True)
    await bench.passes(2)
    assert (bench.phase(ADAPTER), bench.detached) == ("unloaded", [])
    bench.apps.apps.clear()
    await bench.passes()
    assert bench.phase() == "unloaded"


async def test_adapter_of_a_model_that_left_the_configuration_has_failed(bench: Bench) -> None:
    for name in ("own:a", "own:b"):
        bench.store.load(spec(name, base="own"))
    await bench.passes(2)
    bench.store.unload("own:b@1")
    bench.lifecycle._own = set()
    await bench.passes(3)
    assert (bench.phase("own:a@1"), bench.phase("own:b@1")) == ("failed", "unloaded")
    assert ("base" in bench.error("own:a@1"), bench.detached) == (True, [])


async def test_adapter_that_was_loading_while_nothing_ran_is_given_time(bench: Bench) -> None:
    bench.store.load(spec("m:a", base="m@1"))
    with bench.database.write() as connection:
        connection.exec_driver_sql("UPDATE models SET changed_at = 1")
    await bench.passes(2)
    assert bench.phase(ADAPTER) == "ready"
