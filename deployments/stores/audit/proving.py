"""Proving the log in a process of its own: it takes all of one core for as long as it reads."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import orjson

import deployments
from deployments.errors import Overloaded, StoreUnavailable
from deployments.types.audit import Position, Verified, Wrong

_proving = threading.Lock()


def prove(state_path: Path, database_url: str) -> Verified:
    """Return what a child finds; blocks, perhaps for minutes.

    Raises:
        Overloaded: this process has a child that proves already.
        StoreUnavailable: the child could not read the log.
    """
    if not _proving.acquire(blocking=False):
        raise Overloaded("the audit log is being proved already; try again shortly")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "deployments.stores.audit"],
            env={
                **os.environ,
                "PYTHONPATH": str(Path(deployments.__file__).parent.parent),
                "RAGSERVE_STATE_DIR": str(state_path),
                "RAGSERVE_DATABASE_URL": database_url,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    finally:
        _proving.release()
    if done.returncode != 0:
        raise StoreUnavailable("the audit log could not be read")
    return _verified(orjson.loads(done.stdout))


def _verified(values: dict[str, Any]) -> Verified:
    wrong = values.pop("wrong")
    if wrong is None:
        return Verified(**values)
    place = wrong.pop("position")
    return Verified(
        **values, wrong=Wrong(**wrong, position=Position(**place) if place is not None else None)
    )
