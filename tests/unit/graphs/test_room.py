"""Room for a load: what is free is counted once, and models go only where that helps."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.config import ModelsArgs
from deployments.errors import Conflict, InsufficientResources
from deployments.stores.models import ModelStore
from deployments.types import ModelState, SwitchOrder
from graphs import room as module
from graphs.model_app import app_name
from graphs.room import Room
from graphs.serve_apps import AppReport
from tests.unit.graphs.registry import RUNNING, FakeApps, opened, ready, spec

GIB = 1 << 30


class Machine:
    """One node, with room for a number of replicas of half a CPU; who goes is gone when told."""

    def __init__(self, store: ModelStore) -> None:
        self.store = store
        self.apps = FakeApps()
        self.cpus = 2.0
        self.gpus = 0.0
        self.free_bytes = 8 * GIB
        self.stuck: set[str] = set()
        self.went: list[str] = []
        self.lag = 0

    def resources(self) -> tuple[dict, dict]:
        """Ray's tables; Ray notices a replica that went only when asked often enough."""
        running = len(self.apps.apps) + (len(self.went) if self.lag > 0 else 0)
        self.lag -= 1
        used = sum("gpu" in name for name in self.apps.apps)
        total = {"CPU": self.cpus, "GPU": self.gpus, "memory": 64.0 * GIB}
        free = total | {"CPU": self.cpus - running / 2, "GPU": self.gpus - used}
        return {"a": total}, {"a": free}

    async def told(self) -> None:
        for state in self.store.read().models.values():
            if state.phase == "unloading" and state.id not in self.stuck:
                self.apps.apps.pop(app_name(state), None)
                self.store.advance(state, "unloaded")
                self.went.append(state.id)

    def run(self, name: str, **changes: object) -> ModelState:
        state = ready(self.store, name, **changes)
        self.apps.apps[app_name(state)] = RUNNING
        return state

    def room(self, *, evict: bool = True) -> Room:
        return Room(self.store, self.apps, ModelsArgs(evict=evict), self.told)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    database, store = opened(tmp_path)
    made = Machine(store)
    monkeypatch.setattr(module, "resources", made.resources)
    monkeypatch.setattr(module, "machine_free_bytes", lambda: made.free_bytes)
    monkeypatch.setattr(module, "EVICTION_POLL_S", 0.001)
    yield made
    database.close()


async def test_what_fits_sends_nobody_away(machine: Machine) -> None:
    machine.run("a")
    await machine.room().make(spec())
    assert machine.went == []


async def test_a19_nobody_goes_unless_the_operator_allows_it(machine: Machine) -> None:
    machine.cpus = 0.5
    machine.run("a")
    with pytest.raises(InsufficientResources, match="needs 0.5 logical CPUs.*free are: 0 logical"):
        await machine.room(evict=False).make(spec())
    assert machine.went == []


async def test_who_was_used_longest_ago_goes_first(machine: Machine) -> None:
    machine.cpus = 1.5
    for name in ("a", "b", "c"):
        machine.run(name)
    machine.store.note_use({"a@1": 4e9})
    await machine.room().make(spec())
    assert machine.went == ["b@1"]


async def test_only_who_makes_the_difference_goes(machine: Machine) -> None:
    """The GPU's model was used last, and the others have none to give."""
    machine.gpus = 1.0
    for name in ("old", "older"):
        machine.run(name)
    machine.run("gpu", device="cuda")
    await machine.room().make(spec(device="cuda"))
    assert machine.went == ["gpu@1"]
    machine.cpus = 1.5
    machine.run("last")
    machine.went.clear()
    await machine.room().make(spec(min_replicas=2, max_replicas=2))
    assert machine.went == ["old@1", "older@1"]


async def test_who_is_needed_never_goes(machine: Machine) -> None:
    machine.cpus = 2.0
    for name in ("named", "base", "canary", "free"):
        machine.run(name)
    ready(machine.store, "base:a", base="base@1")
    machine.store.switch(SwitchOrder(alias="chat", to="named@1"), {})
    machine.store.switch(SwitchOrder(alias="chat", to="canary@1", canary_percent=1), {})
    await machine.room().make(spec())
    assert machine.went == ["free@1"]
    ready(machine.store)
    machine.apps.apps["model-new"] = RUNNING
    machine.store.switch(SwitchOrder(alias="new", to="m@1"), {})
    with pytest.raises(InsufficientResources):
        await machine.room().make(spec("another"))
    assert machine.went == ["free@1"]


async def test_nobody_goes_where_that_does_not_help(machine: Machine) -> None:
    machine.run("a"), machine.run("b")
    with pytest.raises(InsufficientResources):
        await machine.room().make(spec(min_replicas=5, max_replicas=5))
    machine.free_bytes = GIB
    with pytest.raises(InsufficientResources):
        await machine.room().make(spec(device="cuda"))
    assert machine.went == []


async def test_model_that_collections_need_is_passed_over(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.cpus = 1.0
    machine.run("a"), machine.run("b")
    unload = machine.store.unload

    def needed(model: str) -> ModelState:
        if model == "a@1":
            raise Conflict("collections were embedded with this model")
        return unload(model)

    monkeypatch.setattr(machine.store, "unload", needed)
    await machine.room().make(spec())
    assert machine.went == ["b@1"]
    ready(machine.store)
    machine.apps.apps["model-new"] = RUNNING
    machine.store.switch(SwitchOrder(alias="new", to="m@1"), {})
    with pytest.raises(InsufficientResources):
        await machine.room().make(spec("another"))


async def test_nobody_else_goes_while_ray_counts(machine: Machine) -> None:
    machine.cpus = 1.0
    machine.run("a"), machine.run("b")
    machine.lag = 6
    await machine.room().make(spec())
    assert machine.went == ["a@1"]


async def test_model_that_does_not_go_is_waited_for_with_a_bound(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EVICTION_TIMEOUT_S", 0.01)
    machine.cpus = 0.5
    machine.run("a")
    machine.stuck.add("a@1")
    with pytest.raises(InsufficientResources, match="still in use"):
        await machine.room().make(spec())


async def test_loads_without_a_place_yet_are_counted(machine: Machine) -> None:
    machine.cpus = 1.0
    coming = machine.store.load(spec("coming", min_replicas=2, max_replicas=2))
    room = machine.room(evict=False)
    with pytest.raises(InsufficientResources):
        await room.make(spec())
    await room.make(coming.spec)
    machine.cpus = 2.0  # of which its first replica, below, has 0.5
    machine.apps.apps[app_name(coming)] = AppReport("DEPLOYING", pids=(("10.0.0.1", 7),))
    await room.make(spec(min_replicas=2, max_replicas=2))
    with pytest.raises(InsufficientResources):
        await room.make(spec(min_replicas=3, max_replicas=3))


async def test_memory_of_other_loads_is_counted(machine: Machine) -> None:
    machine.store.load(spec("coming", memory_bytes=6 * GIB))
    machine.apps.is_down = True
    with pytest.raises(InsufficientResources, match="3.00 GiB of memory; 2.00 GiB are free"):
        await machine.room().make(spec(memory_bytes=3 * GIB))
    await machine.room().make(spec(memory_bytes=2 * GIB))
