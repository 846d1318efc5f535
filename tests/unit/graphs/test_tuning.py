"""The tuner with workers that only pretend: what it trains, goes on with, cancels and gives up."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployments.config import TuningArgs
from deployments.errors import EngineFailed
from deployments.stores.database import Database
from deployments.stores.leases import Lease
from deployments.stores.migrations import migrate
from deployments.stores.tunings import TuningStore, new_tuning_id
from deployments.types import (
    CurvePoint,
    Training,
    TuningPlan,
    TuningProgress,
    TuningSpec,
    TuningState,
)
from graphs import tuning as module
from graphs.tuning import LEASE_S, Folders, Tuner

STEPS = 6


class FakeGang:
    """Remembers its steps in a file, as workers do in checkpoints."""

    def __init__(self, bench: "Bench") -> None:
        self._bench = bench
        self.is_stopped = False

    async def reports(self, plan: TuningPlan) -> AsyncIterator[TuningProgress]:
        bench, file = self._bench, plan.folder / "checkpoint"
        bench.gangs.append(self)
        curve = [CurvePoint(*one) for one in json.loads(file.read_text())] if file.exists() else []
        before = plan.loss_before
        if before is None:
            before = 5.0
            bench.evaluated.append(True)
        told = TuningProgress(step=len(curve), curve=tuple(curve), loss_before=before)
        yield told
        while len(curve) < plan.spec.num_steps:
            await self._step(curve)
            told = replace(told, step=len(curve), curve=tuple(curve))
            if len(curve) % plan.spec.training.checkpoint_steps == 0:
                file.write_text(json.dumps([[one.step, one.loss] for one in curve]))
            yield told
        bench.evaluated.append(False)
        plan.adapter.mkdir(parents=True)
        (plan.adapter / "adapter_model.safetensors").write_bytes(b"a")
        yield replace(told, loss_after=0.5)

    async def _step(self, curve: list[CurvePoint]) -> None:
        bench, step = self._bench, len(curve)
        await bench.gate.wait()
        if bench.hang_at == step:
            await asyncio.Event().wait()
        if bench.fail_at == step:
            if not bench.is_broken:
                bench.fail_at = None
            raise EngineFailed("a worker has died")
        bench.trained.append(step)
        curve.append(CurvePoint(step + 1, float("nan") if bench.is_diverging else 4.0 / (step + 1)))

    async def merge(self, plan: TuningPlan, folder: Path) -> None:
        assert plan.adapter.is_dir()
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"m")

    async def stop(self) -> None:
        self.is_stopped = True


class Bench:
    """A tuner over a registry in a file."""

    def __init__(self, folder: Path) -> None:
        url = f"sqlite:///{folder / 'registry.db'}"
        migrate(url)
        self.database = Database(url)
        self.store = TuningStore(self.database)
        self.folders = Folders(folder / "state", folder / "state" / "tuned")
        self.gangs: list[FakeGang] = []
        self.trained: list[int] = []
        self.evaluated: list[bool] = []
        self.fail_at: int | None = None
        self.hang_at: int | None = None
        self.is_broken = self.is_diverging = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.tuner = self.another()

    def another(self) -> Tuner:
        lease = Lease(self.database, "tunings", LEASE_S)
        args = TuningArgs(max_failures=3)
        return Tuner(self.store, lease, self.folders, self._gang, args)

    def _gang(self) -> FakeGang:
        return FakeGang(self)

    def add(self, version: str = "1", **changes: Any) -> str:
        spec = TuningSpec(
            name="m",
            version=version,
            base="b",
            location="b",
            training=Training(checkpoint_steps=2),
            num_steps=STEPS,
            **changes,
        )
        id_ = new_tuning_id()
        self.folders.own(id_).mkdir(parents=True)
        self.store.add(spec, id_, 9)
        return id_

    async def until(self, id_: str, *phases: str, tuner: Tuner | None = None) -> TuningState:
        tuner = tuner or self.tuner
        async with asyncio.timeout(20):
            while True:
                await tuner.step()
                await asyncio.sleep(0.01)
                state = self.store.get(id_)
                if state.phase in phases:
                    break
            if tuner._task is not None and state.phase != "running":
                await tuner._task  # it cleans up after its last word
        return state


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(module, "RENEW_S", 0.0)
    made = Bench(tmp_path)
    yield made
    await made.tuner._stop()
    made.database.close()


async def test_tuning_is_trained_evaluated_and_published(bench: Bench) -> None:
    id_ = bench.add(is_merged=True)
    state = await bench.until(id_, "completed")
    assert bench.trained == list(range(STEPS))
    assert bench.evaluated == [True, False]
    progress = state.progress
    assert (progress.step, progress.loss_before, progress.loss_after) == (STEPS, 5.0, 0.5)
    assert [point.step for point in progress.curve] == list(range(1, STEPS + 1))
    result = bench.folders.result(state)
    assert {one.name for one in result.iterdir()} == {"adapter", "merged", "tuning.json"}
    assert json.loads((result / "tuning.json").read_text())["loss_after"] == 0.5
    assert not bench.folders.own(id_).exists()
    assert [gang.is_stopped for gang in bench.gangs] == [True]


async def test_result_is_not_there_before_it_was_evaluated(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    reports = FakeGang.reports

    async def watched(self: FakeGang, plan: TuningPlan) -> AsyncIterator[TuningProgress]:
        async for told in reports(self, plan):
            seen.append((bench.folders._results / "m@1").exists())
            yield told

    monkeypatch.setattr(FakeGang, "reports", watched)
    state = await bench.until(bench.add(), "completed")
    assert len(seen) == STEPS + 2
    assert not any(seen)
    assert bench.folders.result(state).is_dir()


async def test_attempt_that_only_ends_publishes_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reports(self: FakeGang, plan: TuningPlan) -> AsyncIterator[TuningProgress]:
        yield TuningProgress(step=STEPS, loss_before=5.0)

    monkeypatch.setattr(FakeGang, "reports", reports)
    state = await bench.until(bench.add(), "failed")
    assert state.error == "the workers ended before the training did"
    assert not bench.folders.result(state).exists()


async def test_dead_worker_costs_the_steps_since_the_checkpoint(bench: Bench) -> None:
    bench.fail_at = 5
    state = await bench.until(bench.add(), "completed")
    assert bench.trained == [0, 1, 2, 3, 4, 4, 5]
    assert state.attempt == 2
    assert [point.step for point in state.progress.curve] == list(range(1, STEPS + 1))
    assert bench.evaluated == [True, False]


async def test_tuning_that_fails_again_and_again_has_failed(bench: Bench) -> None:
    bench.fail_at, bench.is_broken = 3, True
    id_ = bench.add()
    state = await bench.until(id_, "failed")
    assert (state.attempt, state.error) == (3, "a worker has died")
    assert not bench.folders.own(id_).exists()
    assert not bench.folders.result(state).exists()


async def test_loss_that_is_no_number_fails_at_once(bench: Bench) -> None:
    bench.is_diverging = True
    state = await bench.until(bench.add(), "failed")
    assert state.attempt == 1
    assert "learning_rate" in state.error


async def test_one_at_a_time_in_their_order(bench: Bench) -> None:
    first, second = bench.add("1"), bench.add("2")
    bench.gate.clear()
    await bench.until(first, "running")
    for _ in range(3):
        await bench.tuner.step()
    assert bench.store.get(second).phase == "queued"
    bench.gate.set()
    await bench.until(second, "completed")
    assert bench.store.get(first).phase == "completed"
    assert len(bench.gangs) == 2


async def test_cancelled_tuning_ends_its_workers_and_leaves_nothing(bench: Bench) -> None:
    id_ = bench.add()
    bench.gate.clear()
    await bench.until(id_, "running")
    while not bench.gangs:
        await asyncio.sleep(0.01)
    assert bench.store.cancel(id_).phase == "cancelling"
    state = await bench.until(id_, "cancelled")
    assert bench.gangs[0].is_stopped
    assert not bench.folders.own(id_).exists()
    assert not bench.folders.result(state).exists()


async def test_another_holder_goes_on_from_the_checkpoint(bench: Bench) -> None:
    id_ = bench.add()
    bench.hang_at = 3
    await bench.until(id_, "running")
    while bench.trained != [0, 1, 2]:
        await asyncio.sleep(0.01)
    await bench.tuner._stop()
    bench.tuner._lease.release()
    bench.hang_at, other = None, bench.another()
    state = await bench.until(id_, "completed", tuner=other)
    assert bench.trained == [0, 1, 2, 2, 3, 4, 5]
    assert state.attempt == 2


async def test_without_the_lease_nothing_is_begun(bench: Bench) -> None:
    id_, other = bench.add(), bench.another()
    assert bench.tuner._lease.hold()
    for _ in range(3):
        await other.step()
    assert bench.store.get(id_).phase == "queued"
