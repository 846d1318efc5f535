"""A load of a hub's model is written down at once, and downloaded by whoever holds the lease."""

import asyncio
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.config import ModelsArgs
from deployments.engines.inspection import fetching
from deployments.engines.inspection.hub import Unreachable, found
from deployments.errors import InvalidRequest
from deployments.types import LoadOrder, LoadProgress, ModelState
from graphs import lifecycle as module
from graphs import tenure
from graphs.model_app import app_name
from graphs.specs import spec_of
from tests.unit.engines.inspection.conftest import hub  # noqa: F401
from tests.unit.engines.inspection.hub_server import Hub
from tests.unit.engines.inspection.material import LLAMA, folder
from tests.unit.graphs.lifecycle_bench import Bench
from tests.unit.graphs.registry import RUNNING

ARGS = ModelsArgs(allow_hub=True)
ORDER = LoadOrder(name="m", version="1", source="hub:org/name", engine="transformers")


@pytest.fixture
def llama(hub: Hub, tmp_path: Path) -> Hub:  # noqa: F811
    """Have the hub offer a model that the checks of a load accept."""
    path = folder(tmp_path / "offered", LLAMA)
    hub.files = {one.name: one.read_bytes() for one in path.iterdir()}
    return hub


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(module, "REROUTE_S", 0.0)
    monkeypatch.setattr(tenure, "RENEW_S", 0.0)
    made = Bench(tmp_path, allow_hub=True)
    yield made
    made.database.close()


def begun(bench: Bench, **changes: Any) -> ModelState:
    return bench.store.load(spec_of(dataclasses.replace(ORDER, **changes), 0, ARGS))


async def until(bench: Bench, condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await bench.passes()
            await asyncio.sleep(0.02)


def spec_here(bench: Bench) -> str:
    return bench.store.read().models["m@1"].spec.location


async def test_load_is_downloaded_and_then_deployed(bench: Bench, llama: Hub) -> None:
    state = begun(bench)
    assert (state.phase, state.spec.location, state.spec.kind) == ("loading", "", "generation")
    assert state.spec.num_bytes == len(llama.files["model.safetensors"])
    assert state.spec.memory_bytes > state.spec.num_bytes
    assert begun(bench) == state
    await until(bench, lambda: spec_here(bench) == "/here")
    await until(bench, lambda: bench.apps.apps)
    assert list(bench.apps.apps) == [app_name(state)]
    bench.apps.apps[app_name(state)] = RUNNING
    await until(bench, lambda: bench.phase() == "ready")
    assert found("org/name")


async def test_progress_is_what_has_come(
    bench: Bench, llama: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama.files["model.safetensors"] += bytes(1 << 20)
    begun(bench)
    llama.gate.clear()
    llama.break_after = 500_000
    monkeypatch.setattr(fetching, "BLOCK_BYTES", 1000)

    def seen() -> LoadProgress:
        return bench.store.read().models["m@1"].progress or LoadProgress(0, 0, 0.0)

    await until(bench, lambda: (seen().bytes_read or 0) >= 500_000)
    assert seen().bytes_total == sum(map(len, llama.files.values()))
    assert not bench.apps.apps
    assert bench.store.unload("m@1").phase == "unloading"
    await until(bench, lambda: bench.phase() == "unloaded")
    assert not bench.lifecycle._downloads._tasks
    llama.gate.set()


async def test_download_that_stands_still_fails_the_load(
    bench: Bench, llama: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama.files["model.safetensors"] += bytes(1 << 20)
    monkeypatch.setattr(fetching, "STILL_S", 0.2)
    begun(bench)
    llama.break_after = 500_000
    llama.gate.clear()
    await until(bench, lambda: bench.phase() == "failed")
    assert "stood still" in bench.error()
    assert found("org/name") is None


async def test_another_holder_goes_on(bench: Bench, llama: Hub) -> None:
    llama.files["model.safetensors"] += bytes(1 << 20)
    begun(bench)
    llama.gate.clear()
    llama.break_after = 500_000
    name = "model.safetensors"
    await until(bench, lambda: name in [one for one, _ in llama.asked])
    bench.lifecycle._downloads.forget(but=set())
    llama.gate.set()
    bench.lifecycle = bench.another()
    await until(bench, lambda: spec_here(bench) == "/here")
    here = found("org/name")
    assert here is not None
    assert (here / name).read_bytes() == llama.files[name]


def test_what_is_here_is_taken_when_the_hub_does_not_answer(llama: Hub) -> None:
    pending = spec_of(ORDER, 0, ARGS)
    fetching.Fetch(fetching_offer()).run()
    whole = spec_of(ORDER, 0, ARGS)
    assert (pending.location, whole.location) == ("", str(found("org/name")))
    llama.status = 503
    assert spec_of(ORDER, 0, ARGS) == whole
    with pytest.raises(Unreachable):
        spec_of(dataclasses.replace(ORDER, source="hub:org/name@v9"), 0, ARGS)


def fetching_offer() -> Any:
    from deployments.engines.inspection.hub import ask

    return ask("org/name", ARGS)


def test_what_can_be_refused_is_refused_at_once(llama: Hub) -> None:
    with pytest.raises(InvalidRequest, match="a model for generation"):
        spec_of(dataclasses.replace(ORDER, kind="reranking"), 0, ARGS)
    llama.status, llama.error_code = 401, "GatedRepo"
    with pytest.raises(InvalidRequest, match="accepted its terms"):
        spec_of(ORDER, 0, ARGS)
    with pytest.raises(InvalidRequest, match="has not allowed"):
        spec_of(ORDER, 0, ModelsArgs())
    assert json.loads(llama.files["config.json"])["architectures"]
