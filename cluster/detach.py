"""`ragserve up --detach`: the supervisor in a session of its own, awaited until ready."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cluster.errors import OperatorError
from cluster.run_record import read_record
from cluster.state import StateFolder

PACKAGES = Path(__file__).resolve().parent.parent
"""The folder that holds our packages: children import them wherever they were started."""


def python_path(current: str) -> str:
    """Return a PYTHONPATH that also finds our packages, after what it had."""
    paths = [path for path in current.split(os.pathsep) if path]
    return os.pathsep.join([*paths, *([] if str(PACKAGES) in paths else [str(PACKAGES)])])


def run_detached(state: StateFolder, arguments: Sequence[str]) -> str:
    """Start a supervisor that outlives us, show its progress, and return its URL when ready.

    Raises:
        OperatorError: it ended instead; its own line says why.
    """
    log = state.logs / "up.log"
    env = os.environ | {"PYTHONPATH": python_path(os.environ.get("PYTHONPATH", ""))}
    command = [sys.executable, "-P", "-m", "cluster.cli", "up", *arguments]
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        return _follow(child, state, log)
    except BaseException:
        child.terminate()
        child.wait()
        raise


def _follow(child: subprocess.Popen[bytes], state: StateFolder, log: Path) -> str:
    with log.open(encoding="utf-8", errors="replace") as lines:
        while True:
            code = child.poll()
            for line in lines:
                if line.startswith("ragserve: "):
                    raise OperatorError(line.removeprefix("ragserve: ").strip())
                if line.startswith(("•", "!")):
                    print(line, end="", file=sys.stderr, flush=True)
            if code is not None:
                raise OperatorError(f"the supervisor ended with exit code {code}; see {log}")
            record = read_record(state)
            if record is not None and record.pid == child.pid and record.phase == "ready":
                return record.url
            time.sleep(0.1)
