"""A process that ends with the one that started it; vLLM is not needed."""

import os
import signal
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection

import psutil  # type: ignore[import-untyped]
import pytest

from deployments.engines.generation.vllm.parent import end_with_parent

SPAWN = get_context("spawn")


def start_child(ready: Connection, watches: bool) -> None:
    child = SPAWN.Process(target=sleep, args=(ready, watches))
    child.start()
    child.join()


def sleep(ready: Connection, watches: bool) -> None:
    if watches:
        end_with_parent()
    ready.send(os.getpid())
    time.sleep(600)


@pytest.mark.parametrize("watches", [True, False])
def test_process_that_watches_ends_with_the_one_that_started_it(watches: bool) -> None:
    here, there = SPAWN.Pipe()
    parent = SPAWN.Process(target=start_child, args=(there, watches))
    parent.start()
    child = psutil.Process(here.recv())
    parent.kill()
    parent.join()
    try:
        gone, _ = psutil.wait_procs([child], timeout=20 if watches else 2)
        assert bool(gone) == watches
    finally:
        if child.is_running():
            child.send_signal(signal.SIGKILL)
    here.close()
    there.close()
