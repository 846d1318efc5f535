"""The order of a whole training, with a worker that only counts."""

import math
from pathlib import Path
from typing import Any

import pytest

from deployments.tuning import loop as module
from deployments.tuning.loop import Loop
from deployments.types import CurvePoint, Training, TuningPlan, TuningProgress, TuningSpec

STEPS = 5


class FakeWorker:
    """Notes what it is asked."""

    def __init__(self, done: int = 0, diverges_at: int = 99, last: float = 0.5) -> None:
        self.step_number, self._diverges_at, self._last = done, diverges_at, last
        self.curve = tuple(CurvePoint(step, 1.0) for step in range(1, done + 1))
        self.asked: list[Any] = []

    def step(self) -> float:
        self.step_number += 1
        loss = math.nan if self.step_number == self._diverges_at else 1.0 / self.step_number
        self.curve = (*self.curve, CurvePoint(self.step_number, loss))
        self.asked.append(self.step_number)
        return loss

    def save(self) -> None:
        self.asked.append("save")

    def agree(self, is_so: bool) -> bool:
        return is_so

    def evaluate(self, *, is_base: bool) -> float:
        self.asked.append("base" if is_base else "tuned")
        return 5.0 if is_base else self._last

    def write(self, folder: Path) -> None:
        self.asked.append(folder.name)


def run(worker: FakeWorker, loss_before: float | None = None) -> list[TuningProgress]:
    spec = TuningSpec(
        name="m",
        version="1",
        base="b",
        location="b",
        training=Training(checkpoint_steps=2),
        num_steps=STEPS,
    )
    plan = TuningPlan(
        spec=spec, folder=Path("f"), adapter=Path("f/a"), attempt=1, loss_before=loss_before
    )
    told: list[TuningProgress] = []
    Loop(worker, plan, told.append).run()  # type: ignore[arg-type]
    return told


@pytest.fixture(autouse=True)
def every_step_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPORT_S", 0.0)


def test_loop_evaluates_before_and_after_and_saves_between() -> None:
    worker = FakeWorker()
    told = run(worker)
    assert worker.asked == ["base", 1, 2, "save", 3, 4, "save", 5, "tuned", "a"]
    assert [one.step for one in told] == [0, 0, 1, 2, 3, 4, 5, 5]
    assert [one.loss_before for one in told] == [None, *[5.0] * 7]
    assert [one.loss_after for one in told] == [*[None] * 7, 0.5]
    assert [point.step for point in told[-1].curve] == [1, 2, 3, 4, 5]


def test_loop_goes_on_and_does_not_evaluate_the_base_again() -> None:
    worker = FakeWorker(done=4)
    told = run(worker, loss_before=4.0)
    assert worker.asked == [5, "tuned", "a"]
    assert [(one.step, one.loss_before) for one in told] == [(4, 4.0), (5, 4.0), (5, 4.0)]
    assert len(told[0].curve) == 4


def test_loop_that_is_not_asked_tells_the_ends_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPORT_S", 1e9)
    assert [one.step for one in run(FakeWorker(), loss_before=4.0)] == [0, 5]


def test_loss_that_is_no_number_ends_the_loop_and_writes_nothing() -> None:
    worker = FakeWorker(diverges_at=3)
    told = run(worker, loss_before=4.0)
    assert worker.asked == [1, 2, "save", 3]
    assert math.isnan(told[-1].curve[-1].loss)
    assert told[-1].loss_after is None


def test_evaluation_that_is_no_number_writes_nothing() -> None:
    worker = FakeWorker(done=STEPS, last=math.inf)
    told = run(worker, loss_before=4.0)
    assert worker.asked == ["tuned"]
    assert told[-1].loss_after == math.inf
