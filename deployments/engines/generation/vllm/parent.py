"""Has a process end with the one that started it, however that one ends. It knows no vLLM."""

import multiprocessing
import os
import signal
import threading
import time

CHECK_PERIOD_S = 0.5


def end_with_parent() -> None:
    """Kill this process, from a thread of its own, soon after the one that started it has ended.

    Only a process that `multiprocessing` started can call it.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "nothing started this process"
    threading.Thread(target=_watch, args=(parent.pid,), name="parent", daemon=True).start()


def _watch(parent: int) -> None:
    # Not PR_SET_PDEATHSIG: that would follow the thread that started us, not its process.
    while os.getppid() == parent:
        time.sleep(CHECK_PERIOD_S)
    os.kill(os.getpid(), signal.SIGKILL)
