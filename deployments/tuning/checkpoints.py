"""Checkpoints of a training: folders that appear whole, of which the newest two stay.

Only DeepSpeed reads and writes what is in them. They hold pickles, so nothing but our own state
folder is ever read.
"""

import contextlib
import io
import os
import re
import shutil
from pathlib import Path
from typing import Any

from torch import distributed

from deployments.tuning.adapter import sync

NAME = re.compile(r"checkpoint-(\d{8})")
NUM_KEPT = 2


def newest(folder: Path) -> Path | None:
    """Return the newest whole checkpoint."""
    found = sorted(one for one in folder.glob("checkpoint-*") if NAME.fullmatch(one.name))
    return found[-1] if found else None


def save(engine: Any, folder: Path, step: int, rank: int) -> None:
    """Have all workers write a checkpoint; a kill meanwhile leaves the one before."""
    name = f"checkpoint-{step:08d}"
    part = folder / f"{name}.part"
    if rank == 0:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)
    distributed.barrier()
    with contextlib.redirect_stdout(io.StringIO()):
        engine.save_checkpoint(
            folder,
            tag=part.name,
            client_state={"step_number": step},
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


def load(engine: Any, folder: Path) -> int:
    """Go on from the newest checkpoint; return the steps that were done, 0 without one."""
    found = newest(folder)
    if found is None:
        return 0
    with contextlib.redirect_stdout(io.StringIO()):
        _, state = engine.load_checkpoint(
            folder, tag=found.name, load_module_strict=False, load_lr_scheduler_states=False
        )
    return int(state["step_number"])


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
