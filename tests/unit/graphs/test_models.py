"""Which replicas an id means, as the registry changes."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.errors import ModelNotFound, ModelUnavailable, StoreUnavailable
from deployments.stores.models import ModelStore
from deployments.types import Adapter, SwitchOrder
from graphs import models as module
from graphs.models import Models
from tests.unit.graphs.registry import fake_loaded, opened, ready, spec

OWN = {"own": "generation", "own-embedder": "embedding"}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelStore]:
    monkeypatch.setattr(module.Loaded, "of", fake_loaded)
    database, store = opened(tmp_path)
    yield store
    database.close()


@pytest.fixture
def models(store: ModelStore) -> Models:
    return Models(store, OWN)  # type: ignore[arg-type]


async def found(models: Models, model: str, kind: Any = "generation") -> str:
    loaded = await models.find(model, kind)
    return loaded.id if loaded else "the configuration's"


def switch(store: ModelStore, alias: str, to: str, percent: int = 100) -> None:
    order = SwitchOrder(alias=alias, to=to, canary_percent=percent, drain_s=60)
    store.switch(order, OWN)


async def test_id_is_found_as_soon_as_it_is_ready(models: Models, store: ModelStore) -> None:
    with pytest.raises(ModelNotFound):
        await models.find("m@1", "generation")
    state = store.load(spec())
    with pytest.raises(ModelUnavailable) as loading:
        await models.find("m@1", "generation")
    assert (loading.value.retry_after_s, loading.value.param) == (5, "model")
    store.advance(state, "ready", is_ready=True)
    assert await found(models, "m@1") == "m@1"
    assert await found(models, "m") == "m@1"
    assert models.ids("generation") == ("m@1",)


async def test_own_models_need_no_registry(models: Models, store: ModelStore) -> None:
    store._database = None  # type: ignore[assignment]
    assert await found(models, "own") == "the configuration's"
    assert await found(models, "own-embedder", "embedding") == "the configuration's"


async def test_name_is_the_version_that_was_ready_first(models: Models, store: ModelStore) -> None:
    ready(store), ready(store, version="2")
    assert await found(models, "m") == "m@1"
    store.unload("m@1")
    await models.refresh()
    assert await found(models, "m") == "m@2"
    with pytest.raises(ModelNotFound):
        await models.find("m@1", "generation")


async def test_model_of_another_kind_is_not_found(models: Models, store: ModelStore) -> None:
    ready(store, kind="embedding")
    with pytest.raises(ModelNotFound):
        await models.find("m@1", "generation")
    assert await found(models, "m@1", "embedding") == "m@1"
    with pytest.raises(ModelNotFound):
        await models.find("own", "embedding")


async def test_alias_follows_its_switches(models: Models, store: ModelStore) -> None:
    ready(store), ready(store, version="2")
    switch(store, "chat", "m@1")
    assert await found(models, "chat") == "m@1"
    switch(store, "chat", "m@2")
    await models.refresh()
    assert await found(models, "chat") == "m@2"
    assert await models.resolve("chat", "generation") == "m@2"
    switch(store, "chat", "own")
    await models.refresh()
    assert await found(models, "chat") == "the configuration's"
    assert "chat" in models.ids("generation")


async def test_canary_gets_its_share(models: Models, store: ModelStore) -> None:
    ready(store), ready(store, version="2")
    switch(store, "chat", "m@1")
    switch(store, "chat", "m@2", percent=20)
    counts = Counter([await found(models, "chat") for _ in range(4000)])
    assert 600 < counts["m@2"] < 1000
    assert counts["m@1"] + counts["m@2"] == 4000
    assert await models.resolve("chat", "generation") == "m@1"


async def test_alias_of_a_model_that_is_loaded_again_says_when_to_retry(
    models: Models, store: ModelStore
) -> None:
    state = ready(store)
    switch(store, "chat", "m@1")
    store.advance(state, "loading")
    with pytest.raises(ModelUnavailable) as loading:
        await models.find("chat", "generation")
    assert loading.value.retry_after_s == 5


async def test_handles_live_as_long_as_their_model(models: Models, store: ModelStore) -> None:
    state = ready(store)
    first = await models.find("m@1", "generation")
    store.load(spec("other"))
    await models.refresh()
    assert await models.find("m@1", "generation") is first
    going = store.unload("m@1")
    await models.refresh()
    await asyncio.sleep(0)
    assert not first.handle.is_closed, "its requests still run"  # type: ignore[union-attr]
    store.advance(going, "unloaded")
    await models.refresh()
    await asyncio.sleep(0.01)
    assert first.handle.is_closed  # type: ignore[union-attr]
    assert state.id not in models.ids("generation")


async def test_embedders_are_found_by_their_very_version(models: Models, store: ModelStore) -> None:
    ready(store, "e", kind="embedding")
    switch(store, "vectors", "e@1")
    await models.refresh()
    assert await models.resolve("vectors", "embedding") == "e@1"
    assert models.embedder("e@1") is not None
    assert models.embedder("vectors") is None


async def test_adapter_is_its_base_with_a_word_to_the_replica(
    models: Models, store: ModelStore
) -> None:
    base = ready(store)
    ready(store, "m:a", base="m@1", location="/adapters/a")
    for name in ("m:a", "m:a@1", "m@1:a"):
        loaded = await models.find(name, "generation")
        assert loaded is not None
        assert (loaded.id, loaded.adapter) == ("m:a@1", Adapter("m:a@1#1", "/adapters/a"))
        assert loaded.handle.state == base  # type: ignore[attr-defined]
    plain = await models.find("m", "generation")
    assert plain is not None
    assert plain.adapter is None
    assert set(models.ids("generation")) == {"m@1", "m:a@1", "m:a"}
    switch(store, "chat", "m:a@1")
    await models.refresh()
    assert await found(models, "chat") == "m:a@1"
    for unknown in ("m:b", "m:a@2", "m@2:a", "n:a"):
        with pytest.raises(ModelNotFound):
            await models.find(unknown, "generation")


async def test_adapter_that_is_loaded_again_has_another_id(
    models: Models, store: ModelStore
) -> None:
    ready(store)
    state = ready(store, "m:a", base="m@1")
    store.advance(store.unload("m:a@1"), "unloaded")
    ready(store, "m:a", base="m@1")
    await models.refresh()
    loaded = await models.find("m:a", "generation")
    assert loaded is not None
    assert loaded.adapter == Adapter("m:a@1#2", "")
    assert state.attempt == 1


async def test_adapter_of_a_base_that_comes_back_is_waited_for(
    models: Models, store: ModelStore
) -> None:
    base = ready(store)
    ready(store, "m:a", base="m@1")
    store.advance(base, "loading")
    for name in ("m:a", "m:a@1", "m@1:a"):
        with pytest.raises(ModelUnavailable):
            await models.find(name, "generation")


async def test_adapter_leaves_its_bases_handles_open(models: Models, store: ModelStore) -> None:
    ready(store)
    state = ready(store, "m:a", base="m@1")
    loaded = await models.find("m:a", "generation")
    store.advance(store.unload(state.id), "unloaded")
    await models.refresh()
    await asyncio.sleep(0.01)
    assert loaded is not None
    assert not loaded.handle.is_closed  # type: ignore[attr-defined]
    with pytest.raises(ModelNotFound):
        await models.find("m:a", "generation")


async def test_share_of_a_target_that_is_away_goes_to_the_other(
    models: Models, store: ModelStore
) -> None:
    ready(store)
    canary = ready(store, version="2")
    switch(store, "chat", "m@1")
    switch(store, "chat", "m@2", percent=50)
    store.advance(canary, "loading")
    await models.refresh()
    assert {await found(models, "chat") for _ in range(50)} == {"m@1"}
    switch(store, "chat", "own", percent=50)
    await models.refresh()
    shares = {await found(models, "chat") for _ in range(200)}
    assert shares == {"m@1", "the configuration's"}


async def test_alias_says_which_of_the_configurations_models_is_meant(
    models: Models, store: ModelStore
) -> None:
    switch(store, "chat", "own")
    switch(store, "vectors", "own-embedder")
    assert await models.route("chat", "generation") == "own"
    assert await models.route("vectors", "embedding") == "own-embedder"
    with pytest.raises(ModelNotFound):
        await models.route("chat", "embedding")


async def test_registry_is_followed_after_any_failure(
    models: Models, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.0)
    failures: list[Exception] = [KeyError("a row of another release"), StoreUnavailable("lost")]
    revision = store.revision

    def failing() -> int:
        if failures:
            raise failures.pop()
        return revision()

    monkeypatch.setattr(store, "revision", failing)
    ready(store)
    following = asyncio.ensure_future(models.follow(notes_use=False))
    try:
        async with asyncio.timeout(10):
            while not models.ids("generation"):
                await asyncio.sleep(0.01)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    assert failures == []


async def test_use_that_could_not_be_noted_is_noted_later(
    models: Models, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(store)
    await models.find("m@1", "generation")

    def lost(_: object) -> None:
        raise StoreUnavailable("lost")

    with monkeypatch.context() as patched:
        patched.setattr(store, "note_use", lost)
        with pytest.raises(StoreUnavailable):
            await models._note_use()
    await models._note_use()
    assert store.read().models["m@1"].used_at is not None


async def test_lost_database_takes_nothing_from_what_is_known(
    models: Models, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(store)
    switch(store, "chat", "m@1")
    await models.refresh()

    def lost() -> int:
        raise StoreUnavailable("the database did not answer")

    monkeypatch.setattr(store, "revision", lost)
    for name in ("m@1", "m", "chat"):
        assert await found(models, name) == "m@1"
    with pytest.raises(StoreUnavailable):
        await models.find("loaded-since", "generation")
