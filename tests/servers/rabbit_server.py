"""A private RabbitMQ in a folder of its own, on ports of this host alone, stopped by its pid.

Erlang's name server runs as a process of ours too: one that Erlang starts itself stays for ever.
Both are killed by the kernel when the process that started them dies, however it does.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import amqp

from tests.stack import free_port

START_TIMEOUT_S = 120
PR_SET_PDEATHSIG = 1
PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
CONFIG = """\
loopback_users.guest = false
disk_free_limit.absolute = 50MB
vm_memory_high_watermark.absolute = 512MB
log.console = true
log.console.level = warning
log.file = false
"""

LOOPBACK = "-kernel inet_dist_use_interface {127,0,0,1}"

libc = ctypes.CDLL(None, use_errno=True)


class RabbitServer:
    """One server; it may be killed and started again, and keeps what is durable."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self._name_port = free_port()
        self._distribution_port = free_port()
        self._processes: list[subprocess.Popen[bytes]] = []
        (folder / "rabbitmq.conf").write_text(CONFIG)
        (folder / "plugins").write_text("[].\n")

    @property
    def url(self) -> str:
        """Return its address."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    @property
    def pids(self) -> list[int]:
        """Return the server's processes, the name server first."""
        return [process.pid for process in self._processes]

    def connect(self) -> amqp.Connection:
        """Return a connection, which the caller closes."""
        connection = amqp.Connection(
            f"127.0.0.1:{self.port}", userid="guest", password="guest", connect_timeout=5
        )
        connection.connect()
        return connection

    def start(self) -> None:
        """Start, and return when it answers."""
        if not PROGRAM.exists():
            raise RuntimeError("RabbitMQ is missing: run tests/servers/install as root")
        self._run(["epmd", "-port", str(self._name_port), "-address", "127.0.0.1"])
        self._run([str(PROGRAM)])
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                return self.connect().close()
            except (OSError, amqp.AMQPError) as error:
                if self._processes[-1].poll() is not None or time.monotonic() > deadline_s:
                    log = (self._folder / "log").read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"RabbitMQ did not start:\n{log}") from error
                time.sleep(0.1)

    def stop(self) -> None:
        """Stop it as an operator does: what is durable is there at the next start."""
        self.send(signal.SIGTERM)
        self._processes[-1].wait(60)
        self.kill()

    def kill(self) -> None:
        """Kill it at once.

        Source: RabbitMQ 3.10 then forgets the leader of a quorum queue that is younger than three
        minutes, and answers nobody who consumes from it.
        """
        for process in reversed(self._processes):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait(30)
        self._processes = []

    def send(self, what: signal.Signals) -> None:
        """Send the server a signal, such as SIGSTOP."""
        self._processes[-1].send_signal(what)

    def _run(self, command: list[str]) -> None:
        with (self._folder / "log").open("ab") as log:
            process = subprocess.Popen(
                command,
                env=self._environment(),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
            )
        self._processes.append(process)

    def _environment(self) -> dict[str, str]:
        folder = str(self._folder)
        return {
            "PATH": os.environ["PATH"],
            "HOME": folder,  # Erlang's cookie
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._name_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the server, whose pid is known
            "RABBITMQ_NODENAME": f"rs{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/logs",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{folder}/generated",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 " + LOOPBACK,
        }


@contextmanager
def running_rabbit() -> Iterator[RabbitServer]:
    """Run a new server."""
    folder = Path(tempfile.mkdtemp(prefix="rs-rabbit-"))
    server = RabbitServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
