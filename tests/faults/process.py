"""Starts the disturbed processes, and says what each did."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from tests.stack import ROOT


class Mode(IntEnum):
    """What happens at the chosen call; the numbers are those of `faultio.c`."""

    COUNT = 0
    KILL = 1
    TEAR = 2
    FAIL_ONCE = 3
    FAIL_ON = 4
    POWER = 5


@dataclass(frozen=True)
class Outcome:
    """How far a process came: steps acknowledged, the error of one, calls made, how it ended."""

    acknowledged: int
    failed: str | None
    calls: int
    signal: int
    status: int
    repeated: list[str] = field(default_factory=list)


class Disturber:
    """Runs operations in children of a process that has imported everything."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def run(
        self, operation: str, state: Path, *, at: int = 0, mode: Mode = Mode.COUNT, **options: Any
    ) -> Outcome:
        """Run the steps of an operation on `state`/test.db; see `Mode` for what happens at `at`."""
        job = {"operation": operation, "url": url_of(state), "state": str(state), **options}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job | {"at": at, "mode": int(mode)}) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))


def url_of(state: Path) -> str:
    return f"sqlite:///{state / 'test.db'}"


def compiled_shim(folder: Path) -> Path:
    """Compile `faultio.c`; a missing compiler is an error, never a reason to skip."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise RuntimeError("a C compiler is missing: run tests/servers/install as root")
    path = folder / "faultio.so"
    source = Path(__file__).with_name("faultio.c")
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(path), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return path


@contextmanager
def disturber(folder: Path) -> Iterator[Disturber]:
    """Yield a disturber whose shim lies in `folder`."""
    env = {**os.environ, "LD_PRELOAD": str(compiled_shim(folder)), "OMP_NUM_THREADS": "1"}
    env |= {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.zygote"],
        env=env,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield Disturber(process)
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(30)
