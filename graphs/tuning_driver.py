"""The process that owns a tuning's job in Ray: when it ends, however that comes, all of it ends.

``graphs/tuning_gang.py`` starts it, and writes to its standard input: one line that says what to
train, then one now and again. Without them it ends itself, since another may go on by then.
"""

import json
import logging
import os
import select
import sys
import threading
from pathlib import Path
from typing import Any

import ray

from deployments.config import TuningArgs
from deployments.errors import EngineFailed
from deployments.types import TuningPlan, TuningSpec

PATIENCE_S = 15.0


def told_path(plan: TuningPlan) -> Path:
    """Return where the progress of an attempt is."""
    return plan.folder / f"told-{plan.attempt}.json"


def error_path(plan: TuningPlan) -> Path:
    """Return where an attempt's failure is told."""
    return plan.folder / f"error-{plan.attempt}.txt"


def plan_of(values: dict[str, Any]) -> TuningPlan:
    """Return a plan of which JSON was made."""
    return TuningPlan(
        spec=TuningSpec.of(values["spec"]),
        folder=Path(values["folder"]),
        adapter=Path(values["adapter"]),
        attempt=values["attempt"],
        loss_before=values["loss_before"],
    )


def watch(descriptor: int) -> None:
    """End this process as soon as nobody writes to it any more."""
    while select.select([descriptor], [], [], PATIENCE_S)[0]:
        if not os.read(descriptor, 4096):
            break
    os._exit(2)


def main() -> int:
    """Train what standard input says; return 0, or 1 when the reason is told."""
    order = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=watch, args=(sys.stdin.fileno(),), daemon=True).start()
    ray.init(
        address=order["address"],
        runtime_env={"env_vars": {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}},
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    os.environ["RAY_TRAIN_V2_ENABLED"] = "1"  # read when it is imported
    from graphs.tuning_trainer import fit, settings

    plan, args = plan_of(order["plan"]), TuningArgs(**order["args"])
    os.environ.update(settings(args))
    try:
        fit(plan, args, told_path(plan))
    except EngineFailed as error:
        error_path(plan).write_text(error.message, encoding="utf-8")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
