"""The folder of a backup, on this host or in an object store."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import uuid_utils

from deployments.errors import Conflict
from deployments.stores.objects import ObjectRoot


class BackupFolder(Protocol):
    """Files by name."""

    def write(self, name: str, pieces: Iterator[bytes]) -> None:
        """Write a file, whole and on the disk when this returns; raises OSError."""
        ...

    def open(self, name: str) -> BinaryIO:
        """Open a file; raises FileNotFoundError, or OSError."""
        ...

    def names(self) -> set[str]:
        """Return the names of all files."""
        ...

    def publish(self) -> None:
        """Give the folder its name: until then, nobody takes it for a backup."""
        ...

    def discard(self) -> None:
        """Remove what was written; nothing happens after `publish`."""
        ...


class LocalFolder:
    """A folder of this host's, written beside its place and renamed; for its owner only."""

    def __init__(self, path: Path, *, is_new: bool = False) -> None:
        """Raises Conflict when a new folder's place is taken."""
        self._path = path.absolute()
        self._place = self._path
        if is_new:
            if os.path.lexists(self._place):
                raise Conflict(f"{path} exists; a backup needs a new folder")
            self._place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path = self._place.with_name(f".{path.name}.{uuid_utils.uuid7().hex}.part")
            self._path.mkdir(mode=0o700)

    def write(self, name: str, pieces: Iterator[bytes]) -> None:
        """Write a file with mode 0600."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        descriptor = os.open(self._path / name, flags, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(descriptor)

    def open(self, name: str) -> BinaryIO:
        """Open a regular file; a symbolic link is refused."""
        flags = os.O_RDONLY | os.O_NOFOLLOW
        return cast("BinaryIO", os.fdopen(os.open(self._path / name, flags), "rb"))

    def names(self) -> set[str]:
        """Return the names of all entries."""
        return set(os.listdir(self._path))  # noqa: PTH208 - as names, not paths

    def publish(self) -> None:
        """Rename the folder; raises Conflict when its place was taken meanwhile."""
        _sync(self._path)
        if os.path.lexists(self._place):
            raise Conflict(f"{self._place.name} exists; a backup needs a new folder")
        self._path.rename(self._place)
        self._path = self._place
        _sync(self._place.parent)

    def discard(self) -> None:
        """Remove the folder that has no name yet."""
        if self._path != self._place:
            shutil.rmtree(self._path, ignore_errors=True)


class ObjectFolder:
    """A prefix in an object store: it is a backup once it has a manifest, which comes last."""

    def __init__(self, uri: str, *, is_new: bool = False) -> None:
        """Raises Conflict when there is a manifest already."""
        self._root = ObjectRoot(uri)
        self._written: list[str] = []
        if is_new and self.names():
            raise Conflict("there are files at this place; a backup needs a new one")

    def write(self, name: str, pieces: Iterator[bytes]) -> None:
        """Write an object."""
        draft = self._root.create([name])
        try:
            for piece in pieces:
                draft.write(piece)
            draft.publish()
            self._written.append(name)
        finally:
            draft.discard()

    def open(self, name: str) -> BinaryIO:
        """Open an object."""
        return self._root.open([name])

    def names(self) -> set[str]:
        """Return the names of all objects."""
        return self._root.names()

    def publish(self) -> None:
        """Keep what was written."""
        self._written = []

    def discard(self) -> None:
        """Remove what was written."""
        for name in self._written:
            self._root.remove([name])
        self._written = []


def backup_folder(place: str, *, is_new: bool = False) -> BackupFolder:
    """Return the folder at a path or URI."""
    if "://" in place and not place.startswith("file://"):
        return ObjectFolder(place, is_new=is_new)
    return LocalFolder(Path(place.removeprefix("file://")).expanduser(), is_new=is_new)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
