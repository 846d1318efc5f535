"""The state folder: where it is, what lies in it, and who may read it. Not what the files say."""

import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import OperatorError

# A UNIX socket address holds 107 bytes; Ray appends about 70 of them to its folder.
MAX_RAY_FOLDER = 37


@dataclass(frozen=True, slots=True)
class StateFolder:
    """Paths of one installation. Everything in it is private to the user who runs it."""

    path: Path

    @property
    def ray_token(self) -> Path:
        """Return the file with the token that every Ray process must present."""
        return self.path / "ray_token"

    @property
    def admin_key(self) -> Path:
        """Return the file with the first admin key."""
        return self.path / "admin.key"

    @property
    def run_file(self) -> Path:
        """Return the file that describes the running cluster."""
        return self.path / "run.json"

    @property
    def lock_file(self) -> Path:
        """Return the file that the running supervisor keeps locked."""
        return self.path / "up.lock"

    @property
    def logs(self) -> Path:
        """Return the folder of the logs of the processes that `up` starts."""
        return self.path / "logs"

    @property
    def edge(self) -> Path:
        """Return the folder of the edge's generated configuration."""
        return self.path / "edge"

    @property
    def installation(self) -> str:
        """Return a short name of this folder, different for every folder on the host."""
        return hashlib.sha256(os.fsencode(self.path)).hexdigest()[:10]

    @property
    def ray(self) -> Path:
        """Return Ray's folder: in the state folder when sockets fit there, else below /tmp."""
        inside = self.path / "ray"
        if len(os.fsencode(inside)) <= MAX_RAY_FOLDER:
            return inside
        return Path("/tmp") / f"ragserve-{self.installation}" / "ray"  # noqa: S108 - see `_private`

    def prepare(self) -> None:
        """Create the folders with mode 0700.

        Raises:
            OperatorError: a folder cannot be created, or belongs to somebody else.
        """
        for folder in (self.path, self.logs, self.edge, self.ray.parent, self.ray):
            _private(folder)


def _private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise OperatorError(
                f"{folder} is not a folder of your own; remove it or choose another"
            )
        folder.chmod(0o700)
    except OSError as error:
        raise OperatorError(f"cannot use the folder {folder}: {error.strerror}") from error


def write_private(path: Path, text: str) -> None:
    """Replace a file atomically; only its owner can read it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)


@contextmanager
def exclusive(state: StateFolder) -> Iterator[bool]:
    """Hold the lock of the running cluster; yields False when another process holds it."""
    descriptor = os.open(state.lock_file, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield True


def supervisor_pid(state: StateFolder) -> int | None:
    """Return the process id of the supervisor that runs on this folder, or None."""
    try:
        with state.lock_file.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or 0) or None
    except FileNotFoundError:
        pass
    return None
