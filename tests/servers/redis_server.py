"""A private Redis in a folder of its own: reached by a Unix socket, stopped by its pid."""

import ctypes
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

START_TIMEOUT_S = 30
PR_SET_PDEATHSIG = 1

libc = ctypes.CDLL(None, use_errno=True)


class RedisServer:
    """One server; it may be killed, paused and started again, and keeps nothing then."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "redis.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return its address."""
        return f"unix://{self._socket}"

    def client(self, *, is_text: bool = True) -> redis.Redis:
        """Return a client, which the caller closes; without `is_text` it answers bytes."""
        return redis.Redis.from_url(self.url, decode_responses=is_text)

    def start(self) -> None:
        """Start, and return when it answers."""
        program = shutil.which("redis-server")
        if program is None:
            raise RuntimeError("Redis is missing: run tests/servers/install as root")
        command = [program, "--port", "0", "--unixsocket", str(self._socket), "--save", ""]
        command += ["--appendonly", "no", "--dir", str(self._socket.parent)]
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
        )
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                with self.client() as client:
                    client.ping()
                    return
            except redis.RedisError as error:
                if self._process.poll() is not None or time.monotonic() > deadline_s:
                    raise RuntimeError("Redis did not start") from error
                time.sleep(0.02)

    def send(self, what: signal.Signals) -> None:
        """Send a signal, such as SIGSTOP."""
        assert self._process is not None
        self._process.send_signal(what)

    def stop(self) -> None:
        """Stop it, which is no different: it keeps nothing."""
        self.kill()

    def kill(self) -> None:
        """Kill it."""
        if self._process is not None:
            self.send(signal.SIGKILL)
            self._process.wait(30)
            self._process = None


@contextmanager
def running_redis() -> Iterator[RedisServer]:
    """Run a new server."""
    folder = Path(tempfile.mkdtemp(prefix="rs-redis-"))
    server = RedisServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
