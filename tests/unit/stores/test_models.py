import dataclasses
import threading
import time

import pytest

from deployments.errors import Conflict, ModelNotFound
from deployments.stores.database import Database
from deployments.stores.models import ModelStore
from deployments.types import (
    Alias,
    AliasTarget,
    LoadProgress,
    ModelSpec,
    ModelState,
    SwitchOrder,
)
from tests.unit.stores.material import doc, put

OWN = {"own": "generation", "own-embedder": "embedding"}


@pytest.fixture
def store(database: Database) -> ModelStore:
    return ModelStore(database)


def spec(name: str = "m", version: str = "1", **changes) -> ModelSpec:
    given = {"kind": "generation", "engine": "fake", "options": {"context_length": 128}}
    return ModelSpec(name=name, version=version, **(given | changes))


def ready(store: ModelStore, *args, **kwargs) -> ModelState:
    state = store.load(spec(*args, **kwargs))
    assert store.advance(state, "ready", is_ready=True)
    return store.read().models[state.id]


def switch(store: ModelStore, alias: str, to: str, percent: int = 100, drain_s: float = 0) -> Alias:
    order = SwitchOrder(alias=alias, to=to, canary_percent=percent, drain_s=drain_s)
    return store.switch(order, OWN)


def test_load_is_kept_as_it_was_asked_for(store: ModelStore):
    wanted = spec(
        source="/models/m", precision="bf16", max_replicas=3, num_bytes=2**40, memory_bytes=7
    )
    state = store.load(wanted)
    assert (state.spec, state.phase, state.attempt) == (wanted, "loading", 1)
    assert store.read().models == {"m@1": state}


def test_load_again_changes_nothing(store: ModelStore):
    state = store.load(spec())
    assert store.load(spec(num_bytes=5)) == state
    assert store.advance(state, "ready", is_ready=True)
    known = store.read().models["m@1"]
    assert store.load(spec()) == known
    assert known.ready_at is not None


def test_load_with_other_settings_is_refused_while_it_runs(store: ModelStore):
    state = store.load(spec())
    with pytest.raises(Conflict, match="other settings"):
        store.load(spec(precision="fp32"))
    assert store.advance(state, "failed", error="cheese")
    again = store.load(spec(precision="fp32"))
    assert (again.attempt, again.spec.precision, again.error) == (2, "fp32", "")


def test_load_during_unload_is_refused(store: ModelStore):
    ready(store)
    store.unload("m@1")
    with pytest.raises(Conflict, match="being unloaded"):
        store.load(spec())
    assert store.read().models["m@1"].phase == "unloading"


def test_loads_at_once_are_one(store: ModelStore):
    states: list[ModelState] = []
    threads = [threading.Thread(target=lambda: states.append(store.load(spec()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(states) == 8
    assert {state.attempt for state in states} == {1}


def test_every_change_raises_the_revision_and_a_refused_one_does_not(store: ModelStore):
    before = store.revision()
    state = store.load(spec())
    assert store.revision() == store.read().revision == before + 1
    store.note_progress(state, LoadProgress(5, 10, 0.5))
    assert store.revision() == before + 1, "progress is no change"
    assert store.read().models["m@1"].progress == LoadProgress(5, 10, 0.5)
    with pytest.raises(Conflict):
        switch(store, "a", "m@1")
    assert store.revision() == before + 1


def test_step_of_an_earlier_attempt_or_phase_changes_nothing(store: ModelStore):
    first = store.load(spec())
    assert store.advance(first, "failed", error="cheese")
    store.load(spec())
    assert not store.advance(first, "ready", is_ready=True)
    stale = dataclasses.replace(first, attempt=2, phase="ready")
    assert not store.advance(stale, "loading")
    assert store.read().models["m@1"].phase == "loading"


def test_switch_needs_a_ready_model_of_one_kind(store: ModelStore):
    with pytest.raises(ModelNotFound):
        switch(store, "chat", "m@1")
    state = store.load(spec())
    with pytest.raises(Conflict, match="is loading"):
        switch(store, "chat", "m@1")
    store.advance(state, "ready", is_ready=True)
    assert switch(store, "chat", "m@1").targets == (AliasTarget("m@1", 100),)
    ready(store, "e", kind="embedding")
    with pytest.raises(Conflict, match="another kind"):
        switch(store, "chat", "e@1", percent=10)
    with pytest.raises(Conflict, match="another kind"):
        switch(store, "chat", "own-embedder", percent=10)
    assert store.read().aliases["chat"].targets == (AliasTarget("m@1", 100),)


def test_canary_takes_a_share_and_rollback_gives_it_back(store: ModelStore):
    ready(store), ready(store, version="2")
    with pytest.raises(Conflict, match="canary"):
        switch(store, "chat", "m@2", percent=10)
    switch(store, "chat", "m@1")
    both = (AliasTarget("m@1", 90), AliasTarget("m@2", 10))
    assert switch(store, "chat", "m@2", percent=10).targets == both
    assert store.read().models["m@1"].retire_at is None
    switch(store, "chat", "m@1", drain_s=60)
    models = store.read().models
    assert models["m@1"].retire_at is None
    assert models["m@2"].retire_at > time.time() + 30
    switch(store, "chat", "m@2")
    assert store.read().models["m@2"].retire_at is None, "it is named again"


def test_what_nothing_names_is_unloaded_when_its_time_has_come(store: ModelStore):
    ready(store), ready(store, version="2"), ready(store, "other")
    switch(store, "chat", "m@1")
    switch(store, "also", "m@1")
    switch(store, "chat", "m@2")
    assert store.unload_retired(time.time() + 1) == [], "another alias names it"
    switch(store, "also", "own", drain_s=60)
    assert store.unload_retired(time.time()) == []
    assert [one.id for one in store.unload_retired(time.time() + 61)] == ["m@1"]
    phases = {one.id: one.phase for one in store.read().models.values()}
    assert phases == {"m@1": "unloading", "m@2": "ready", "other@1": "ready"}


def test_unload_of_a_named_model_needs_force(store: ModelStore):
    ready(store), ready(store, version="2")
    switch(store, "chat", "m@1")
    switch(store, "chat", "m@2", percent=10)
    with pytest.raises(Conflict, match="alias"):
        store.unload("m@1")
    assert store.unload("m@1", force=True).phase == "unloading"
    assert store.read().aliases["chat"].targets == (AliasTarget("m@2", 100),)
    store.unload("m@2", force=True)
    assert store.read().aliases == {}
    assert store.unload("m@2").phase == "unloading", "twice is once"


def test_unload_of_a_model_that_collections_need_needs_force(store: ModelStore, database: Database):
    put(database, [doc("a")])
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE collections SET embedding_model = 'm@1'")
    ready(store, kind="embedding")
    with pytest.raises(Conflict, match="collections"):
        store.unload("m@1")
    assert store.unload("m@1", force=True).phase == "unloading"


def test_other_weights_under_the_id_that_collections_need_are_refused(
    store: ModelStore, database: Database
):
    put(database, [doc("a")])
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE collections SET embedding_model = 'm@1'")
    state = ready(store, kind="embedding", source="/a")
    store.unload("m@1", force=True)
    store.advance(dataclasses.replace(state, phase="unloading"), "unloaded")
    with pytest.raises(Conflict, match="collections"):
        store.load(spec(kind="embedding", source="/b"))
    assert store.load(spec(kind="embedding", source="/a", max_replicas=2)).phase == "loading"


def test_unload_of_nothing_is_not_found(store: ModelStore):
    with pytest.raises(ModelNotFound):
        store.unload("m@1")


def test_failed_model_is_gone_at_once(store: ModelStore):
    state = store.load(spec())
    store.advance(state, "failed", error="cheese")
    assert store.unload("m@1").phase == "unloaded"


def test_use_is_noted(store: ModelStore):
    ready(store)
    revision = store.revision()
    store.note_use({"m@1": 12.5})
    assert (store.read().models["m@1"].used_at, store.revision()) == (12.5, revision)


def test_adapter_needs_a_base_that_is_ready(store: ModelStore):
    base = store.load(spec())
    with pytest.raises(Conflict, match="loading"):
        store.load(spec("m:a", base="m@1"))
    store.advance(base, "ready", is_ready=True)
    state = store.load(spec("m:a", base="m@1"))
    assert (state.id, state.spec.base, state.phase) == ("m:a@1", "m@1", "loading")
    assert store.load(spec("m:a", base="m@1")) == state
    with pytest.raises(Conflict, match="other settings"):
        store.load(spec("m:a", base="m@1", adapter="/other"))
    assert store.load(spec("own:a", base="own")).phase == "loading"


def test_base_with_adapters_goes_by_force_and_takes_them_along(store: ModelStore):
    ready(store), ready(store, "n")
    ready(store, "m:a", base="m@1"), ready(store, "n:a", base="n@1")
    switch(store, "chat", "m:a@1")
    with pytest.raises(Conflict, match="adapters"):
        store.unload("m@1")
    store.unload("m@1", force=True)
    found = store.read()
    phases = {name: one.phase for name, one in found.models.items()}
    assert phases == {"m@1": "unloading", "m:a@1": "unloading", "n@1": "ready", "n:a@1": "ready"}
    assert found.aliases == {}


def test_base_goes_once_its_adapters_are_unloaded(store: ModelStore):
    ready(store)
    ready(store, "m:a", base="m@1")
    with pytest.raises(Conflict):
        store.unload("m@1")
    store.unload("m:a@1")
    assert store.unload("m@1").phase == "unloading"


def test_base_that_no_alias_names_any_more_stays_for_its_adapters(store: ModelStore):
    ready(store), ready(store, version="2")
    switch(store, "chat", "m@1")
    ready(store, "m:a", base="m@1")
    switch(store, "chat", "m@2")
    store.unload_retired(time.time() + 1)
    assert store.read().models["m@1"].phase == "ready"


def test_adapter_retires_as_versions_do_and_its_base_does_not(store: ModelStore):
    ready(store)
    ready(store, "m:a", base="m@1"), ready(store, "m:a", version="2", base="m@1")
    switch(store, "chat", "m:a@1")
    switch(store, "chat", "m:a@2", percent=50)
    switch(store, "chat", "m:a@2")
    assert [one.id for one in store.unload_retired(time.time() + 1)] == ["m:a@1"]
    assert store.read().models["m@1"].phase == "ready"


def test_longest_names_of_adapters_are_kept(store: ModelStore):
    base = "b" * 64
    ready(store, base)
    name = f"{base}:{'a' * 64}"
    store.load(spec(name, version="v" * 32, base=f"{base}@1"))
    assert f"{name}@{'v' * 32}" in store.read().models
