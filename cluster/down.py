"""`ragserve down`: end the running cluster, and what an earlier one may have left."""

import os
import signal
import time

from rich.console import Console

from cluster.errors import OperatorError
from cluster.processes import end_survivors
from cluster.state import StateFolder, supervisor_pid
from deployments.config import Settings

TIMEOUT_S = 60.0


def down() -> None:
    """End the cluster of this state folder, and only that one.

    Examples:
      ragserve down
      RAGSERVE_STATE_DIR=~/second ragserve down
    """
    state = StateFolder(Settings().state_path)
    pid = supervisor_pid(state)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        _wait(state)
    left = end_survivors(state.installation)
    state.run_file.unlink(missing_ok=True)
    console = Console(stderr=True)
    if pid is None and not left:
        console.print("nothing was running")
    elif pid is None:
        console.print(f"ended {left} processes that an earlier run had left")
    else:
        console.print("down")


def _wait(state: StateFolder) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while supervisor_pid(state) is not None:
        if time.monotonic() > deadline:
            raise OperatorError(f"the supervisor did not end within {TIMEOUT_S:.0f} s")
        time.sleep(0.1)
