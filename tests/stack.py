"""Starts a whole installation in a folder of its own, through the command that operators use."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 240


@dataclass(frozen=True)
class Stack:
    """A running installation: its address, its admin key, and the environment of its commands."""

    url: str
    key: str
    state_dir: Path
    env: dict[str, str]

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    def client(self, timeout_s: float = 120) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=self.headers, timeout=timeout_s)

    def command(self, *args: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        return run_command(self.env, *args, timeout_s=timeout_s)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def run_command(
    env: dict[str, str], *args: str, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cluster.cli", *args],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@contextmanager
def running(config: str | Path, **extra_env: str) -> Iterator[Stack]:
    """Start `config` with a new state folder; stop it and all its processes afterwards."""
    with tempfile.TemporaryDirectory(prefix="rs-") as folder:
        port = free_port()
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "RAGSERVE_STATE_DIR": folder,
            "RAGSERVE_HTTP_PORT": str(port),
            "RAGSERVE_GRPC_PORT": str(free_port()),
            **extra_env,
        }
        env.pop("RAGSERVE_API_KEY", None)
        env.pop("RAGSERVE_URL", None)
        try:
            up = run_command(env, "up", str(config), "--detach", timeout_s=START_TIMEOUT_S)
            assert up.returncode == 0, f"ragserve up failed:\n{up.stdout}\n{up.stderr}"
            key = (Path(folder) / "admin.key").read_text().strip()
            yield Stack(f"http://127.0.0.1:{port}", key, Path(folder), env)
        finally:
            down = run_command(env, "down")
            assert down.returncode == 0, f"ragserve down failed:\n{down.stdout}\n{down.stderr}"
