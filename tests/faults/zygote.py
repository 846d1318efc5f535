"""A process that has imported everything, and forks a child for each operation to be disturbed.

Its own memory is the same for all children, so they differ in nothing but the chosen call. It runs
with `faultio.c` preloaded; ``process.py`` starts it and talks to it.
"""

import ctypes
import gc
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.faults.operations import OPERATIONS, Stores, prepare


class Job:
    """One operation in one folder, disturbed at one call."""

    def __init__(self, job: dict[str, Any], shim: ctypes.CDLL) -> None:
        self._job, self._shim = job, shim
        self._stores = Stores(job["url"], Path(job["state"]))

    def run(self, report: int) -> None:
        """Do every step; report each that returned, and the first that raised."""
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        steps = OPERATIONS[self._job["operation"]].steps
        self._arm()
        for number, step in enumerate(steps[self._job.get("first", 0) :]):
            try:
                step(self._stores)
            except Exception as error:
                text = f"{type(error).__module__}.{type(error).__name__}"
                os.write(report, json.dumps({"failed": text}).encode() + b"\n")
                self._finish(report, number)
                return
            os.write(report, b'{"acknowledged": 1}\n')
        self._finish(report, len(steps))

    def _arm(self) -> None:
        job = self._job
        mount = str(job.get("mount", "")).encode()
        self._shim.fault_arm(ctypes.c_long(job["at"]), job["mode"], job.get("errno", 0), mount)

    def _finish(self, report: int, done: int) -> None:
        """Report the number of calls; if asked, go on undisturbed with the step that failed."""
        calls = self._shim.fault_calls()
        os.write(report, json.dumps({"calls": calls}).encode() + b"\n")
        if not self._job.get("repeat"):
            return
        self._shim.fault_arm(ctypes.c_long(0), 0, 0, b"")
        first = self._job.get("first", 0) + done
        for step in OPERATIONS[self._job["operation"]].steps[first:]:
            try:
                step(self._stores)
                text = ""
            except Exception as error:
                text = f"{type(error).__module__}.{type(error).__name__}"
            os.write(report, json.dumps({"repeated": text}).encode() + b"\n")


def run_forked(job: dict[str, Any], shim: ctypes.CDLL) -> dict[str, Any]:
    """Return what a child reported until it ended or died, and the signal that killed it."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reader)
            Job(job, shim).run(writer)
            code = 0
        finally:
            os._exit(code)  # no clean-up: nothing of the parent's is this process's
    os.close(writer)
    with os.fdopen(reader) as report:
        lines = [json.loads(line) for line in report]
    _, status = os.waitpid(pid, 0)
    found: dict[str, Any] = {"acknowledged": 0, "failed": None, "calls": 0, "repeated": []}
    for line in lines:
        for name, value in line.items():
            if name == "acknowledged":
                found[name] += 1
            elif name == "repeated":
                found[name].append(value)
            else:
                found[name] = value
    killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return found | {"signal": killed, "status": 0 if killed else os.WEXITSTATUS(status)}


def warm() -> None:
    """Do every operation once, so that children find the code and its caches ready."""
    folder = Path(tempfile.mkdtemp(prefix="rs-warm-"))
    for number, (_, operation) in enumerate(OPERATIONS.items()):
        state = folder / str(number)
        stores = Stores(f"sqlite:///{state / 'test.db'}", state)
        prepare(operation.base, stores.url, state)
        for step in operation.steps:
            step(stores)
        stores.close()
    shutil.rmtree(folder)


def main() -> None:
    """Answer one job a line until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
    warm()
    gc.collect()
    gc.freeze()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run_forked(json.loads(line), shim)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
