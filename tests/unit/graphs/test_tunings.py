"""What a tuning made is removed, unless something uses it."""

from pathlib import Path

import pytest

from deployments.config import ModelsArgs
from deployments.errors import Conflict, NotFound
from deployments.stores.database import Database
from deployments.stores.migrations import migrate
from deployments.stores.tunings import TuningStore, new_tuning_id
from deployments.types import ModelPhase, ModelSpec, ModelState, Registry, Training, TuningSpec
from graphs.tunings import Tunings

EMPTY = Registry(1, {}, {})


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    monkeypatch.setenv("RAGSERVE_STATE_DIR", str(tmp_path))
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    migrate(url)
    return Database(url)


def add(store: TuningStore, version: str = "1", base: str = "b") -> str:
    spec = TuningSpec(
        name="facts", version=version, base=base, location=base, training=Training(), num_steps=1
    )
    return store.add(spec, new_tuning_id(), 9).id


def completed(store: TuningStore, folder: Path) -> str:
    id_ = add(store)
    state = store.begin(store.get(id_))
    assert state is not None
    assert store.end(state, "completed")
    made = folder / "tuned" / "facts@1" / "adapter"
    made.mkdir(parents=True)
    (made / "adapter_model.safetensors").write_bytes(b"a")
    return id_


def loaded(phase: ModelPhase, **spec: str) -> Registry:
    model = ModelSpec(name="m", version="1", kind="generation", engine="transformers", **spec)
    return Registry(1, {"m@1": ModelState(spec=model, phase=phase, attempt=1, changed_at=0.0)}, {})


async def test_version_goes_with_its_tuning(database: Database, tmp_path: Path) -> None:
    store, tunings = TuningStore(database), Tunings(database, ModelsArgs(), {})
    id_ = completed(store, tmp_path)
    await tunings.delete(id_, loaded("unloaded", source="tuned:facts@1"))
    assert not (tmp_path / "tuned" / "facts@1").exists()
    with pytest.raises(NotFound):
        await tunings.delete(id_, EMPTY)


@pytest.mark.parametrize(
    "spec", [{"source": "tuned:facts@1"}, {"source": "b", "adapter": "tuned:facts@1/adapter"}]
)
async def test_version_that_is_loaded_stays(
    spec: dict[str, str], database: Database, tmp_path: Path
) -> None:
    store, tunings = TuningStore(database), Tunings(database, ModelsArgs(), {})
    id_ = completed(store, tmp_path)
    for phase in ("loading", "ready"):
        with pytest.raises(Conflict, match="m@1"):
            await tunings.delete(id_, loaded(phase, **spec))
    assert (tmp_path / "tuned" / "facts@1" / "adapter").is_dir()


async def test_version_that_is_tuned_further_stays(database: Database, tmp_path: Path) -> None:
    store, tunings = TuningStore(database), Tunings(database, ModelsArgs(), {})
    id_ = completed(store, tmp_path)
    further = add(store, "2", base="tuned:facts@1")
    for one in (id_, further):
        with pytest.raises(Conflict):
            await tunings.delete(one, EMPTY)


async def test_failed_tuning_leaves_what_another_made(database: Database, tmp_path: Path) -> None:
    store, tunings = TuningStore(database), Tunings(database, ModelsArgs(), {})
    failed = add(store)
    state = store.begin(store.get(failed))
    assert state is not None
    store.end(state, "failed", "no cheese")
    completed(store, tmp_path)
    await tunings.delete(failed, EMPTY)
    assert (tmp_path / "tuned" / "facts@1" / "adapter").is_dir()
