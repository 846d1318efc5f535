"""Runs the `ragserve` command as an operator does: a process, a state folder, a port."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from cluster.ports import free_ports
from cluster.processes import survivors
from cluster.run_record import read_record
from cluster.state import StateFolder

ROOT = Path(__file__).resolve().parents[2]
APPS = Path(__file__).parent / "apps"
START_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Installation:
    """One state folder and one port."""

    state: StateFolder
    port: int

    @classmethod
    def new(cls, folder: Path) -> "Installation":
        return cls(StateFolder(folder), free_ports(1)[0])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        return os.environ | {
            "RAGSERVE_STATE_DIR": str(self.state.path),
            "RAGSERVE_HTTP_PORT": str(self.port),
            "RAGSERVE_GRPC_PORT": "0",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(APPS)]),
        }

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "cluster.cli", *arguments],
            env=self.environment() | env,
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **env)
        out, err = process.communicate(timeout=START_TIMEOUT_S)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def status(self) -> dict[str, Any]:
        done = self.run("status", "--json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def phase(self) -> str:
        record = read_record(self.state)
        return record.phase if record else ""

    def wait_until_ready(self, process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.phase() != "ready" or not self.answers():  # the edge answers a moment earlier
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/x", timeout=5).is_success
        except httpx.TransportError:
            return False

    def num_processes(self) -> int:
        return len(survivors(self.state.installation))

    def wait_until_gone(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while self.num_processes():
            assert time.monotonic() < deadline, survivors(self.state.installation)
            time.sleep(0.1)

    def clean_up(self) -> None:
        """End whatever a failed test has left, through the command itself."""
        self.run("down")


def end(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """Send a signal and return what the process wrote to stderr by its end."""
    process.send_signal(number)
    return process.communicate(timeout=60)[1]
