"""Working folders: the files of what this process holds, gone when it is.

Each process has one folder and holds a lock on a file in it, so whoever finds the lock free knows
that the process is dead, and removes what it left.
"""

import fcntl
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import uuid_utils

log = logging.getLogger(__name__)

MIN_FREE_BYTES = 256 * 1024 * 1024
"""Room on the disk below which nothing new goes there: the database must go on."""

REST_S = 60.0
"""How long nothing is put on a disk that refused something."""

LOCK = ".lock"


class Workspace:
    """Hands out folders below `root`, and removes those of dead processes; safe for threads."""

    def __init__(self, root: Path, min_free_bytes: int = MIN_FREE_BYTES) -> None:
        """Touch nothing yet; the first folder does."""
        self._root = root
        self._min_free_bytes = min_free_bytes
        self._own = root / uuid_utils.uuid7().hex
        self._lock: int | None = None
        self._is_closed = False
        self._resting_until_s = 0.0

    def new_folder(self) -> Path | None:
        """Return a new empty folder; None while the disk is full or refuses."""
        if self._is_closed or time.monotonic() < self._resting_until_s:
            return None
        try:
            with _exclusive(self._root):
                self._claim()
            if shutil.disk_usage(self._own).free < self._min_free_bytes:
                raise OSError("the disk is almost full")
            folder = self._own / uuid_utils.uuid7().hex
            folder.mkdir(mode=0o700)
        except OSError as error:
            self.rest(error)
            return None
        return folder

    def rest(self, error: BaseException) -> None:
        """Put nothing on the disk for a while."""
        self._resting_until_s = time.monotonic() + REST_S
        log.warning("indexes stay in memory, the disk refuses: %s", type(error).__name__)

    def sweep(self) -> int:
        """Remove the folders of dead processes; return how many there were."""
        if not self._root.is_dir():
            return 0
        num_removed = 0
        with _exclusive(self._root):
            for folder in self._root.iterdir():
                if folder.is_dir() and folder != self._own and _is_dead(folder):
                    shutil.rmtree(folder, ignore_errors=True)
                    num_removed += 1
        return num_removed

    def close(self) -> None:
        """Remove this process's folder; what is open in it stays readable."""
        self._is_closed = True
        shutil.rmtree(self._own, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _claim(self) -> None:
        if self._lock is not None:
            return
        self._own.mkdir(mode=0o700)
        self._lock = _locked(self._own / LOCK)
        assert self._lock is not None, "nobody else knows this folder"


@contextmanager
def holding(path: Path, timeout_s: float = 0.0) -> Iterator[bool]:
    """Hold a lock among processes while the block runs; yield False when another one holds it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    end_s = time.monotonic() + timeout_s
    descriptor = _locked(path)
    while descriptor is None and time.monotonic() < end_s:
        time.sleep(0.02)
        descriptor = _locked(path)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def _exclusive(root: Path) -> Iterator[None]:
    """Keep others from removing a folder that is not locked yet; nobody holds this for long."""
    with holding(root / LOCK, timeout_s=10.0) as is_held:
        if not is_held:
            raise OSError("another process holds the working folders")
        yield


def _is_dead(folder: Path) -> bool:
    descriptor = _locked(folder / LOCK)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is not None


def _locked(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor
    os.close(descriptor)
    return None
