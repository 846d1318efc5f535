"""Checkpoints of a training: folders that appear whole, of which the newest two stay.

Only DeepSpeed reads and writes what is in them. They hold pickles, so nothing but our own state
folder is ever read.
"""

import contextlib
import io
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import distributed

from deployments.tuning.adapter import sync
from deployments.types import CurvePoint

NAME = re.compile(r"checkpoint-(\d{8})")
NUM_KEPT = 2


def newest(folder: Path) -> Path | None:
    """Return the newest whole checkpoint."""
    found = sorted(one for one in folder.glob("checkpoint-*") if NAME.fullmatch(one.name))
    return found[-1] if found else None


def save(engine: Any, folder: Path, curve: Sequence[CurvePoint], step: int, attempt: int) -> None:
    """Have all workers write a checkpoint; a kill meanwhile leaves the one before.

    Workers of an earlier attempt that are not dead yet write to a place of their own.
    """
    name, rank = f"checkpoint-{step:08d}", distributed.get_rank()
    part = folder / f"{name}.{attempt}.part"
    if rank == 0:
        folder.mkdir(mode=0o700, exist_ok=True)  # in a folder that is gone when it was cancelled
    distributed.barrier()
    with contextlib.redirect_stdout(io.StringIO()):
        engine.save_checkpoint(
            folder,
            tag=part.name,
            client_state={"step_number": step, "curve": [[one.step, one.loss] for one in curve]},
            save_latest=False,
            exclude_frozen_parameters=True,
        )
    distributed.barrier()
    if rank == 0:
        sync(part)
        shutil.rmtree(folder / name, ignore_errors=True)
        part.rename(folder / name)
        _sync_names(folder)
        _forget(folder)
    distributed.barrier()


def load(engine: Any, folder: Path) -> tuple[int, tuple[CurvePoint, ...]]:
    """Go on from the newest checkpoint; return the steps done and their losses."""
    found = newest(folder)
    if found is None:
        return 0, ()
    with contextlib.redirect_stdout(io.StringIO()):
        _, state = engine.load_checkpoint(
            folder, tag=found.name, load_module_strict=False, load_lr_scheduler_states=False
        )
    return int(state["step_number"]), tuple(CurvePoint(*point) for point in state["curve"])


def clear(folder: Path) -> None:
    """Remove the checkpoints that earlier attempts did not finish."""
    for part in folder.glob("*.part"):
        shutil.rmtree(part, ignore_errors=True)


def _sync_names(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _forget(folder: Path) -> None:
    found = sorted(one for one in folder.glob("checkpoint-*") if NAME.fullmatch(one.name))
    for old in found[:-NUM_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
