"""Ray Train's part of a tuning: how workers are placed, how they meet, and what they tell.

It loads torch, pandas and Ray's trainer: for the tuning's own processes only. It does not know
what a worker does (``deployments/tuning/loop.py``).
"""

import contextlib
import json
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from pyarrow.fs import LocalFileSystem
from ray import train
from ray.train.backend import Backend
from ray.train.collective import broadcast_from_rank_zero
from ray.train.torch import TorchConfig
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.exceptions import (
    InsufficientClusterResourcesError,
    UserExceptionWithTraceback,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
)
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2.api.callback import UserCallback
from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError
from ray.train.v2.torch.torch_trainer import TorchTrainer

from deployments.config import TuningArgs
from deployments.errors import EngineFailed, RagError
from deployments.types import TuningPlan, TuningProgress
from deployments.types.seats import LOOPBACK, Seat

UNPLACED = (InsufficientClusterResourcesError, WorkerGroupStartupTimeoutError)


def settings(args: TuningArgs) -> dict[str, str]:
    """Return what Ray Train takes from its environment only.

    A report waits until the workers are polled; a dead one is noticed then.
    """
    return {
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(args.start_timeout_s),
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process; it watches for clouds' notices
        "RAY_TRAIN_METRICS_ENABLED": "0",
        "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
        "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
        "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
    }


def fit(plan: TuningPlan, args: TuningArgs, told: Path) -> None:
    """Train; what the workers report is written to `told` as JSON.

    Raises:
        EngineFailed: a worker died or failed. Another attempt is a new job, with a number.
    """
    resources = {"CPU": args.worker_cpus}
    if plan.spec.memory_bytes:
        resources["memory"] = float(plan.spec.memory_bytes)
    if plan.spec.device == "cuda":
        resources["GPU"] = 1.0
    trainer = Trainer(
        work,
        train_loop_config={"plan": plan},
        torch_config=Meeting(),
        scaling_config=ScalingConfig(
            num_workers=plan.spec.training.workers,
            use_gpu="GPU" in resources,
            resources_per_worker=resources,
            placement_strategy="PACK",
        ),
        run_config=RunConfig(
            name=f"ray-{plan.attempt}",
            storage_path=str(plan.folder),
            storage_filesystem=LocalFileSystem(),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
            callbacks=[Teller(told)],
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise EngineFailed(reason(error, plan.spec.training.workers)) from error


def work(config: Mapping[str, Any]) -> None:
    """Be one worker."""
    logging.getLogger("ray.train").setLevel(logging.WARNING)  # else each report is a line
    from deployments.tuning.loop import train as run  # PEFT and more, in workers only

    plan: TuningPlan = config["plan"]
    run(plan, seat(is_on_gpu=plan.spec.device == "cuda"), report)


def report(progress: TuningProgress) -> None:
    """Tell how far all workers are; all of them call this."""
    train.report(progress.values())


def seat(*, is_on_gpu: bool) -> Seat:
    """Return where this worker stands; Ray shows it its own GPU and no other."""
    context = train.get_context()
    size, num_local = context.get_world_size(), context.get_local_world_size()
    node: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    own = LOOPBACK if num_local == size else node
    with socket.create_server((own, 0)) as listener:
        place = (own, int(listener.getsockname()[1]))
    address, port = broadcast_from_rank_zero(place)
    return Seat(
        rank=context.get_world_rank(),
        size=size,
        local_rank=context.get_local_rank(),
        num_local=num_local,
        address=address,
        port=port,
        device="cuda:0" if is_on_gpu else "cpu",
    )


class Meeting(TorchConfig):
    """Leaves it to the workers to meet.

    By Ray's way, torch listens on every interface of the first one's host, and asks nobody who
    they are.
    """

    @property
    def backend_cls(self) -> type[Backend]:
        """Return what sets up nothing."""
        return Backend

    @property
    def train_func_context(self) -> Any:
        """Return what chooses no device: a seat does."""
        return contextlib.nullcontext


class Teller(UserCallback):
    """Writes down what the workers report; it runs in Ray's controller."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def after_report(
        self, run_context: Any, metrics: Sequence[Mapping[str, Any]], checkpoint: Any
    ) -> None:
        """Write what the first worker says, which is what all of them know."""
        part = self._path.with_suffix(".part")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(metrics[0], file)
        part.replace(self._path)


class Fixed(FixedScalingPolicy):
    """Asks no autoscaler: theirs is asked through an actor that outlives the job."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """Ask for nothing: Ray's placement group does."""

    def _maybe_send_resource_request(self) -> None:
        pass


class Trainer(TorchTrainer):
    """Ray's trainer without what outlives its job, or serves data that there is none of.

    The end of the job frees the workers' placement group; Ray's cleaner, which would do so when
    its controller dies, is an actor that stays.
    """

    def _create_default_callbacks(self) -> list[Any]:
        left_out = (DatasetsCallback, PlacementGroupCleanerCallback)
        found = super()._create_default_callbacks()
        return [one for one in found if not isinstance(one, left_out)]

    def _initialize_and_run_controller(self, **options: Any) -> Any:
        options["scaling_policy"] = Fixed(self.scaling_config)  # type: ignore[arg-type]
        return super()._initialize_and_run_controller(**options)


def reason(error: TrainingFailedError, workers: int) -> str:
    """Return what an operator is told; nothing of what the workers held."""
    if isinstance(error, ControllerError):
        cause = error.controller_failure
        if isinstance(cause, UNPLACED):
            return f"the cluster has no room for {workers} workers"
        return f"{type(cause).__name__} in Ray's trainer"
    failures = list(getattr(error, "worker_failures", {}).values())
    if not failures or any(isinstance(one, WorkerHealthCheckFailedError) for one in failures):
        return "a worker has died"  # the others fail of it, too
    causes = [
        one._base_exc if isinstance(one, UserExceptionWithTraceback) else one for one in failures
    ]
    told = [one.message for one in causes if isinstance(one, RagError)]
    return told[0] if told else f"{type(causes[0]).__name__} in a worker"
