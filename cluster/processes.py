"""Child processes of the supervisor: started so that none outlives it, found again if one does.

Every child carries `RAGSERVE_RUN_ID` in its environment and inherits it to what it starts; the run
id begins with the installation's name, so that only processes of this state folder are ever ended.
"""

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import psutil  # type: ignore[import-untyped]

RUN_ID = "RAGSERVE_RUN_ID"

_PR_SET_PDEATHSIG = 1  # Source: prctl(2)
_libc = ctypes.CDLL(None, use_errno=True)


def _die_with(parent: int) -> Callable[[], None]:
    def setup() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)

    return setup


def spawn(argv: Sequence[str], env: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own: Ctrl-C does not reach it, our death ends it."""
    with log.open("ab") as output:
        return subprocess.Popen(
            list(argv),
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with(os.getpid()),
        )


def stop(child: subprocess.Popen[bytes], grace_s: float) -> None:
    """End a child with SIGTERM, and with SIGKILL after `grace_s`; return when it is gone."""
    child.terminate()
    try:
        child.wait(grace_s)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def survivors(run_id_prefix: str) -> list[psutil.Process]:
    """Return the processes, except this one, whose run id starts with the prefix."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            marker = process.environ().get(RUN_ID, "")
        except (psutil.Error, OSError):
            continue
        if marker.startswith(run_id_prefix):
            found.append(process)
    return found


def end_survivors(
    run_id_prefix: str, grace_s: float = 5.0, keep: Collection[int | None] = ()
) -> int:
    """End every process of the run, except those to keep, and return how many there were.

    Helpers that rewrite their environment (Ray's dashboard modules) are found as descendants.
    """
    roots = [process for process in survivors(run_id_prefix) if process.pid not in keep]
    processes = {process.pid: process for process in roots}
    for root in roots:
        for descendant in _descendants(root):
            processes.setdefault(descendant.pid, descendant)
    for process in processes.values():
        _signal(process, signal.SIGTERM)
    _, alive = psutil.wait_procs(processes.values(), timeout=grace_s)
    for process in alive:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=grace_s)
    return len(processes)


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
