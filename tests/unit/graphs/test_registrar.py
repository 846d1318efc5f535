"""What an operator asks of models is done wholly or not at all, whoever asks beside."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deployments.config import ModelsArgs
from deployments.errors import (
    Conflict,
    InsufficientResources,
    InvalidRequest,
    ModelNotFound,
    StoreUnavailable,
    UnreadableModel,
)
from deployments.stores.database import Database
from deployments.stores.models import ModelStore
from deployments.types import LoadOrder, SwitchOrder
from graphs import registrar as module
from graphs import room
from graphs.loaded import Loaded
from graphs.models import Models
from graphs.registrar import Registrar
from tests.unit.engines.inspection.material import LLAMA, folder
from tests.unit.graphs.registry import FakeApps, fake_loaded, opened

GIB = 1 << 30


@dataclass
class Desk:
    """A registrar of an installation with one node of two logical CPUs."""

    registrar: Registrar
    database: Database
    store: ModelStore
    apps: FakeApps
    folder: Path

    def phases(self) -> dict[str, str]:
        return {one.id: one.phase for one in self.store.read().models.values()}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    node = {"node": {"CPU": 2.0, "memory": 64.0 * GIB}}
    monkeypatch.setattr(module, "has_peers", lambda: True)
    monkeypatch.setattr(Loaded, "of", fake_loaded)
    for each in (module, room):
        monkeypatch.setattr(each, "resources", lambda: (node, node))
    database, store = opened(tmp_path)
    args, apps = ModelsArgs(roots=(str(tmp_path / "models"),), replica_cpus=1.0), FakeApps()
    models = Models(store, {"own": "generation"})
    yield Desk(Registrar(models, store, database, apps, args), database, store, apps, tmp_path)
    database.close()


def order(name: str = "m", version: str = "1", **changes: Any) -> LoadOrder:
    return LoadOrder(**({"name": name, "version": version, "engine": "fake"} | changes))


def files(desk: Desk) -> Path:
    return folder(desk.folder / "models/m", LLAMA)


def read(desk: Desk) -> LoadOrder:
    return order(engine="transformers", source=str(desk.folder / "models/m"))


async def test_loads_of_one_model_at_once_are_one(desk: Desk) -> None:
    states = await asyncio.gather(*(desk.registrar.load(order()) for _ in range(4)))
    assert {(one.id, one.attempt) for one in states} == {("m@1", 1)}


async def test_loads_at_once_do_not_share_one_place(desk: Desk) -> None:
    """There are two places; both of the three that come first see them free."""
    loads = (desk.registrar.load(order(name)) for name in ("a", "b", "c"))
    results = await asyncio.gather(*loads, return_exceptions=True)
    refused = [one for one in results if isinstance(one, InsufficientResources)]
    assert (len(refused), len(desk.phases())) == (1, 2)
    assert "free are: 0 logical CPUs" in refused[0].message


async def test_loads_by_two_ingresses_do_not_share_one_place(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = Models(desk.store, {"own": "generation"})
    args = ModelsArgs(replica_cpus=1.0)
    other = Registrar(models, desk.store, desk.database, desk.apps, args)
    arrived = asyncio.Event()
    make, num_made = room.Room.make, 0

    async def together(self: room.Room, spec: Any) -> None:
        nonlocal num_made
        await make(self, spec)
        num_made += 1
        if num_made == 2:
            arrived.set()
        await arrived.wait()

    monkeypatch.setattr(room.Room, "make", together)
    loads = (
        each.load(order(name, min_replicas=2, max_replicas=2))
        for each, name in ((desk.registrar, "a"), (other, "b"))
    )
    results = await asyncio.gather(*loads, return_exceptions=True)
    assert [isinstance(one, InsufficientResources) for one in results].count(True) == 1
    assert list(desk.phases().values()) == ["loading"]


async def test_what_is_loaded_needs_no_room(desk: Desk) -> None:
    state = await desk.registrar.load(order(min_replicas=2, max_replicas=2))
    assert await desk.registrar.load(order(min_replicas=2, max_replicas=2)) == state


async def test_refused_load_leaves_nothing(desk: Desk) -> None:
    path = files(desk)
    (path / "tokenizer.json").unlink()
    for wrong, error in (
        (read(desk), UnreadableModel),
        (order(engine="transformers", source=str(desk.folder)), InvalidRequest),
        (order(device="cuda:99;rm"), InvalidRequest),
        (order(min_replicas=3, max_replicas=3), InsufficientResources),
        (order("own", ""), Conflict),
    ):
        revision = desk.store.revision()
        with pytest.raises(error):
            await desk.registrar.load(wrong)
        assert (desk.phases(), desk.store.revision()) == ({}, revision)
    assert desk.apps.num_deployed == 0


async def test_lost_database_leaves_no_half_of_a_load(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object, **__: object) -> None:
        raise StoreUnavailable("the database did not answer")

    for method in ("revision", "read", "load"):
        with monkeypatch.context() as patched:
            patched.setattr(desk.store, method, lost)
            with pytest.raises(StoreUnavailable):
                await desk.registrar.load(order(version=method))
    written = desk.phases()
    assert written in ({}, {"m@revision": "loading"}), "it was written, and could not be read"
    state = await desk.registrar.load(order(version="revision"))
    assert (state.phase, state.attempt) == ("loading", 1)


async def test_version_that_comes_back_is_checked_again(desk: Desk) -> None:
    path = files(desk)
    state = await desk.registrar.load(read(desk))
    assert await desk.registrar.reload("m@1") == state, "it is loading already"
    desk.store.advance(state, "failed", error="cheese")
    weights = path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    with pytest.raises(UnreadableModel):
        await desk.registrar.reload("m@1")
    path.rename(desk.folder / "away")
    path.symlink_to(desk.folder / "away")
    with pytest.raises(InvalidRequest):
        await desk.registrar.reload("m@1")
    assert desk.phases() == {"m@1": "failed"}
    path.unlink()
    (desk.folder / "away").rename(path)
    weights.write_bytes(whole)
    again = await desk.registrar.reload("m@1")
    assert (again.attempt, again.spec) == (2, state.spec)


async def test_unknown_and_configured_ids_are_told_apart(desk: Desk) -> None:
    for call in (
        desk.registrar.unload("nobody", force=True),
        desk.registrar.reload("nobody@1"),
        desk.registrar.switch(SwitchOrder(alias="chat", to="nobody@1")),
        desk.registrar.state("../nobody"),
    ):
        with pytest.raises(ModelNotFound):
            await call
    for refused in (
        desk.registrar.unload("own", force=True),
        desk.registrar.switch(SwitchOrder(alias="own", to="own")),
    ):
        with pytest.raises(Conflict):
            await refused
    assert desk.phases() == {}


async def test_switch_waits_for_nobody_and_names_only_what_is_ready(desk: Desk) -> None:
    state = await desk.registrar.load(order())
    with pytest.raises(Conflict, match="is loading"):
        await desk.registrar.switch(SwitchOrder(alias="chat", to="m@1"))
    desk.store.advance(state, "ready", is_ready=True)
    await desk.registrar.switch(SwitchOrder(alias="chat", to="m@1"))
    with pytest.raises(Conflict, match="alias"):
        await desk.registrar.unload("m@1", force=False)
    await desk.registrar.unload("m", force=True)
    with pytest.raises(Conflict, match="unloaded"):
        await desk.registrar.load(order())
    assert desk.store.read().aliases == {}
