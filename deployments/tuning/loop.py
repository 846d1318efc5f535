"""A whole training, as each worker runs it: from the newest checkpoint to the written adapter.

All workers run it at the same time and come to the same decisions. It tells how far it is by a
function that all of them call; it does not know who listens.
"""

import math
import time
from collections.abc import Callable

from deployments.tuning import checkpoints
from deployments.tuning.material import read_material
from deployments.tuning.worker import Worker
from deployments.types import TuningPlan, TuningProgress
from deployments.types.seats import Seat

REPORT_S = 1.0

Report = Callable[[TuningProgress], None]


def train(plan: TuningPlan, seat: Seat, report: Report) -> None:
    """Train to the end, or until the loss is no number; the last report says which.

    Args:
        plan: the same for all workers.
        seat: which worker this is, and where all of them meet.
        report: called by all workers the same number of times.
    """
    folder = plan.folder / "checkpoints"
    if seat.rank == 0:
        checkpoints.clear(folder)
    material = read_material(plan.folder / "material.json")
    Loop(Worker(plan.spec, seat, material, folder, plan.attempt), plan, report).run()


class Loop:
    """The steps of one attempt."""

    def __init__(self, worker: Worker, plan: TuningPlan, report: Report) -> None:
        self._worker, self._plan, self._report = worker, plan, report
        self._before = plan.loss_before
        self._after: float | None = None
        self._told_at = 0.0

    def run(self) -> None:
        """Evaluate the base if that was not done, train, evaluate, write."""
        self._tell()
        if self._before is None:
            self._before = self._worker.evaluate(is_base=True)
            self._tell()
        if self._trained():
            self._after = self._worker.evaluate(is_base=False)
            if math.isfinite(self._after):
                self._worker.write(self._plan.adapter)
        self._tell()

    def _trained(self) -> bool:
        """Do what steps are left; False when the loss is no number."""
        worker, spec = self._worker, self._plan.spec
        while worker.step_number < spec.num_steps:
            if not math.isfinite(worker.step()):
                return False
            step = worker.step_number
            if step % spec.training.checkpoint_steps == 0 and step < spec.num_steps:
                worker.save()
            if worker.agree(time.monotonic() - self._told_at >= REPORT_S):
                self._tell()
        return True

    def _tell(self) -> None:
        self._told_at = time.monotonic()
        worker = self._worker
        self._report(
            TuningProgress(
                step=worker.step_number,
                curve=worker.curve,
                loss_before=self._before,
                loss_after=self._after,
            )
        )
