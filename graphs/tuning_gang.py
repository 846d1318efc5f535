"""The workers of one tuning on Ray Train: started, listened to, and ended together.

They are a job of their own in Ray, owned by one process (``tuning_driver.py``) that this one starts
and that ends with it. This process loads neither torch nor pandas, which Ray Train needs.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Any, Protocol

import ray

from deployments import absent
from deployments.config import TuningArgs
from deployments.errors import EngineFailed
from deployments.types import TuningPlan, TuningProgress
from graphs.tuning_driver import error_path, told_path
from graphs.tuning_merge import merge_apart

POLL_S = 0.25
GONE_S = 1.0
"""Until Ray has killed the workers of a job whose owner was killed. Source: measured, 0.5 s."""

COMMAND = (sys.executable, "-P", "-m", "graphs.tuning_driver")


class Gang(Protocol):
    """The workers of one attempt."""

    def reports(self, plan: TuningPlan) -> AsyncIterator[TuningProgress]:
        """Start the workers and give what they tell, until they have written the adapter.

        Raises EngineFailed when one has died or failed, or tells nothing for too long.
        """
        ...

    async def merge(self, plan: TuningPlan, folder: Path) -> None:
        """Write the base with the adapter in its weights; raises EngineFailed."""
        ...

    async def stop(self) -> None:
        """End all workers at once; harmless when there are none."""
        ...


class RayGang:
    """`Gang` of Ray Train's workers."""

    def __init__(self, args: TuningArgs) -> None:
        self._args = args
        self._driver: subprocess.Popen[bytes] | None = None

    async def reports(self, plan: TuningPlan) -> AsyncIterator[TuningProgress]:
        """Start the workers and give what they tell."""
        self._driver = await asyncio.to_thread(self._started, plan)
        limit_s, seen = self._args.start_timeout_s, b""
        while said := await self._next(self._driver, plan, seen, limit_s):
            limit_s, seen = self._args.step_timeout_s, said
            yield TuningProgress.of(json.loads(said))

    async def merge(self, plan: TuningPlan, folder: Path) -> None:
        """Write merged weights; the workers have ended."""
        await merge_apart(plan.spec, plan.adapter, folder, self._args)

    async def stop(self) -> None:
        """Kill the owner of the job, with which Ray kills the rest."""
        driver, self._driver = self._driver, None
        if driver is None:
            return
        if driver.poll() is None:
            driver.kill()
            await asyncio.to_thread(driver.wait)
            await asyncio.sleep(GONE_S)
        pipe_of(driver).close()

    def _started(self, plan: TuningPlan) -> subprocess.Popen[bytes]:
        order = {
            "address": ray.get_runtime_context().gcs_address,
            "plan": values_of(plan),
            "args": self._args.model_dump(),
        }
        path = absent.path_without(os.environ.get("PYTHONPATH", ""))
        driver = subprocess.Popen(
            COMMAND,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
        )
        write(driver, json.dumps(order).encode())
        os.set_blocking(pipe_of(driver).fileno(), False)  # one that is stopped must not stop us
        return driver

    async def _next(
        self, driver: subprocess.Popen[bytes], plan: TuningPlan, seen: bytes, limit_s: float
    ) -> bytes:
        """Return what is told next; nothing when the training is done."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            write(driver, b"")
            code = driver.poll()  # first: so that the last word is not missed
            said = await asyncio.to_thread(read, told_path(plan))
            if said != seen:
                return said
            if code is not None:
                await asyncio.to_thread(check, code, plan)
                return b""
            await asyncio.sleep(POLL_S)
        raise EngineFailed(f"the workers told nothing within {limit_s:g} s")


def values_of(plan: TuningPlan) -> dict[str, Any]:
    """Return a plan as JSON has it."""
    paths = {"folder": str(plan.folder), "adapter": str(plan.adapter)}
    return dataclasses.asdict(plan) | paths


def write(driver: subprocess.Popen[bytes], line: bytes) -> None:
    """Write a line to a process, which may have ended."""
    with contextlib.suppress(BrokenPipeError):
        pipe_of(driver).write(line + b"\n")


def pipe_of(driver: subprocess.Popen[bytes]) -> IO[bytes]:
    """Return the standard input of a process that was started with a pipe."""
    assert driver.stdin is not None
    return driver.stdin


def read(path: Path) -> bytes:
    """Return what a file holds; nothing if there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def check(code: int, plan: TuningPlan) -> None:
    """Raise EngineFailed if a training ended early."""
    if code:
        said = read(error_path(plan)).decode()
        raise EngineFailed(said or "Ray's trainer has died")
