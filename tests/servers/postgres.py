"""A private PostgreSQL in a folder of its own: reached by a Unix socket, stopped by its pid."""

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

START_TIMEOUT_S = 60
PR_SET_PDEATHSIG = 1
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""For tests that ask what is stored, not what outlives a power loss."""

libc = ctypes.CDLL(None, use_errno=True)


def _program(name: str) -> str:
    """Return the path of a PostgreSQL program, of the newest version that Debian installed."""
    versions = Path("/usr/lib/postgresql").glob(f"*/bin/{name}")
    newest = max(versions, key=lambda path: int(path.parts[4]), default=None)
    found = str(newest) if newest else shutil.which(name)
    if found is None:
        raise RuntimeError("PostgreSQL is missing: run tests/servers/install as root")
    return found


class Postgres:
    """One server and its files; it may be killed and started again."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        """Create the files of an empty server.

        Args:
            folder: exists, and belongs to the user that the server runs as.
            settings: of postgresql.conf.
        """
        self._folder = folder
        self._user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
        self._settings = {"listen_addresses": "", "unix_socket_directories": str(folder)}
        self._settings |= {"max_connections": "60", "shared_buffers": "32MB"} | settings
        command = [_program("initdb"), "-D", str(self._data), "-U", "postgres", "-A", "trust"]
        command += ["--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"]
        subprocess.run(command, check=True, user=self._user, cwd=folder, capture_output=True)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    @property
    def pid(self) -> int:
        """Return the pid of the server's first process."""
        assert self._process is not None
        return self._process.pid

    def url(self, name: str) -> str:
        """Return the SQLAlchemy address of a database."""
        return f"postgresql+psycopg://postgres@/{name}?host={self._folder}"

    def start(self) -> None:
        """Start, and return when it answers."""
        command = [_program("postgres"), "-D", str(self._data)]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                user=self._user,
                cwd=self._folder,
                stdout=log,
                stderr=log,
                preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGQUIT),
            )
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                return self.run("SELECT 1")
            except psycopg.OperationalError as error:
                log_text = (self._folder / "log").read_text(errors="replace")[-2000:]
                if self._process.poll() is not None or time.monotonic() > deadline_s:
                    raise RuntimeError(f"PostgreSQL did not start:\n{log_text}") from error
                time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop: SIGINT ends connections and shuts down, SIGQUIT leaves recovery to the next start.

        SIGKILL would leave processes behind; `kill` ends them too.
        """
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None

    def kill(self) -> None:
        """Kill every process of the server at once, as the kernel does when memory is short."""
        pids = [self.pid, *_children(self.pid)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait(60)
        deadline_s = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline_s:
            time.sleep(0.01)
        self._process = None

    def run(self, *statements: str) -> None:
        """Run statements outside any transaction, as the superuser."""
        conninfo = f"host={self._folder} dbname=postgres user=postgres"
        with psycopg.connect(conninfo, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)  # type: ignore[arg-type]

    def files(self) -> list[Path]:
        """Return every file of the server, its log too."""
        return [path for path in self._folder.rglob("*") if path.is_file()]

    def create(self, name: str, template: str = "template1") -> str:
        """Create a database and return its address."""
        self.run(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return self.url(name)


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed]


@contextmanager
def running_postgres(**settings: str) -> Iterator[Postgres]:
    """Run a new server; every setting of postgresql.conf may be given."""
    folder = Path(tempfile.mkdtemp(prefix="rs-pg-"))
    try:
        if os.geteuid() == 0:
            account = pwd.getpwnam("postgres")
            os.chown(folder, account.pw_uid, account.pw_gid)
        server = Postgres(folder, settings)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
