"""Small file systems of a test: one that loses power, one that fills up, one that is read-only.

They need root and, for the loss of power, a loop device; where those are missing the tests fail and
say so.
"""

import errno
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip()
        raise RuntimeError(f"{' '.join(command)}: {said} (root and loop devices are needed)")


class Disk:
    """An ext4 file system in a file, mounted at `path`."""

    def __init__(self, folder: Path, size_mib: int) -> None:
        self._image, self.path = folder / "disk.img", folder / "disk"
        self.path.mkdir()
        with self._image.open("wb") as image:
            image.truncate(size_mib * 2**20)
        _run("mkfs.ext4", "-q", "-F", str(self._image))

    def mount(self) -> None:
        """Mount it; after a power loss this replays its journal."""
        _run("mount", "-o", "loop", str(self._image), str(self.path))

    def lose_power(self) -> None:
        """Lose what is not on the disk yet; nothing works until it is mounted anew."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def unmount(self) -> None:
        """Unmount it, whatever state it is in."""
        _run("umount", str(self.path))


@contextmanager
def ext4(folder: Path, size_mib: int = 64) -> Iterator[Disk]:
    """Yield a mounted disk in a folder; unmount it at the end."""
    disk = Disk(folder, size_mib)
    disk.mount()
    try:
        yield disk
    finally:
        disk.unmount()


@contextmanager
def tmpfs(path: Path, size_mib: int) -> Iterator[Path]:
    """Yield a folder that holds at most `size_mib`."""
    path.mkdir()
    _run("mount", "-t", "tmpfs", "-o", f"size={size_mib}m,mode=700", "tmpfs", str(path))
    try:
        yield path
    finally:
        _run("umount", "--lazy", str(path))


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Let nothing below a folder be opened for writing; what is open stays writable."""
    _run("mount", "--bind", str(path), str(path))
    try:
        _run("mount", "-o", "remount,bind,ro", str(path))
        yield
    finally:
        _run("umount", "--lazy", str(path))


def fill(folder: Path, *, leave_kib: int) -> Path:
    """Write one file that leaves so much room; return it."""
    path = folder / "filler"
    free = shutil.disk_usage(folder).free - leave_kib * 1024
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, max(4096, free))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    finally:
        os.close(descriptor)
    return path
