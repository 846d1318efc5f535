"""Places outside of the database that files are read from and written to, by path or URI.

What callers of the API name must lie below a configured root. No part of it may be `..`, a symbolic
link or an escape, and only the roots decide about schemes, hosts and credentials.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import uuid_utils

from deployments.errors import Conflict, Forbidden, NotFound, RagError
from deployments.stores.content import invalid
from deployments.stores.objects import ObjectRoot

SEGMENT = re.compile(r"[\w][\w .=@+-]{0,199}")
MAX_SEGMENTS = 32


class Root(Protocol):
    """A folder, or what is like one."""

    def open(self, segments: Sequence[str]) -> BinaryIO:
        """Open a file for reading; raises FileNotFoundError, or OSError."""
        ...

    def create(self, segments: Sequence[str]) -> "Draft":
        """Begin a new file; raises FileExistsError, or OSError."""
        ...


class Draft(Protocol):
    """A file that nobody sees before `publish`."""

    def write(self, piece: bytes) -> None:
        """Append to it."""
        ...

    def publish(self) -> None:
        """Give it its name; raises FileExistsError."""
        ...

    def discard(self) -> None:
        """Remove it; nothing happens after `publish`."""
        ...


@dataclass(frozen=True, slots=True)
class Locations:
    """The roots that callers may name files below; each tenant has a folder of its own there."""

    roots: tuple[str, ...]

    @contextmanager
    def reading(self, uri: str, tenant: str) -> Iterator[BinaryIO]:
        """Open a file.

        Raises:
            Forbidden: it lies below no root, or not in the tenant's folder.
            NotFound: there is no such file.
        """
        root, segments = self._resolved(uri, tenant)
        with _translated():
            file = root.open(segments)
        with file:
            yield file

    @contextmanager
    def writing(self, uri: str, tenant: str) -> Iterator[Draft]:
        """Create a file, whole when the block has ended, or not at all.

        Raises:
            Forbidden: it lies below no root, or not in the tenant's folder.
            Conflict: there is one already.
        """
        root, segments = self._resolved(uri, tenant)
        with _translated():
            draft = root.create(segments)
            try:
                yield draft
                draft.publish()
            finally:
                draft.discard()

    def _resolved(self, uri: str, tenant: str) -> tuple[Root, list[str]]:
        uri = uri.removeprefix("file://") if uri.startswith("file:///") else uri
        for root in self.roots:
            prefix = f"{root.rstrip('/')}/{tenant}/"
            if uri.startswith(prefix):
                segments = uri.removeprefix(prefix).split("/")
                return root_of(root), [tenant, *_checked(segments)]
        raise Forbidden(f"a uri must begin with a root of this server's, then `{tenant}/`")


def locations_of(setting: str) -> Locations:
    """Return the roots of a setting, separated by commas."""
    roots = (root.strip() for root in setting.split(","))
    return Locations(tuple(root.removeprefix("file://") for root in roots if root))


def root_of(root: str) -> Root:
    """Return a folder of this host's, or a prefix in an object store."""
    return ObjectRoot(root) if "://" in root else FolderRoot(Path(root))


def _checked(segments: list[str]) -> list[str]:
    is_short = len(segments) <= MAX_SEGMENTS
    if not is_short or not all(SEGMENT.fullmatch(segment) for segment in segments):
        raise invalid("the uri holds a part that no file here may have", "uri")
    return segments


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound("there is no such file") from error
    except FileExistsError as error:
        raise Conflict("there is a file of this name; nothing was written") from error
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else "the store did not answer"
        raise RagError(f"the file could not be read or written: {reason}") from error


class FolderRoot:
    """A folder of this host's. Each step is taken from the one before, so none can be swapped."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self, segments: Sequence[str]) -> BinaryIO:
        """Open a regular file below the folder."""
        folder = self._folder(segments[:-1])
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            return cast("BinaryIO", os.fdopen(os.open(segments[-1], flags, dir_fd=folder), "rb"))
        finally:
            os.close(folder)

    def create(self, segments: Sequence[str]) -> "_FileDraft":
        """Begin a file; folders that are missing are made."""
        folder = self._folder(segments[:-1], make=True)
        try:
            return _FileDraft(folder, segments[-1])
        except BaseException:
            os.close(folder)
            raise

    def _folder(self, segments: Sequence[str], *, make: bool = False) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY
        if make:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._path, flags)
        for segment in segments:
            try:
                if make:
                    _make(segment, descriptor)
                deeper = os.open(segment, flags | os.O_NOFOLLOW, dir_fd=descriptor)
            finally:
                os.close(descriptor)
            descriptor = deeper
        return descriptor


class _FileDraft:
    """A file under another name until it is whole and on the disk."""

    def __init__(self, folder: int, name: str) -> None:
        self._folder = folder
        self._name = name
        self._temporary = f".{name[:80]}.{uuid_utils.uuid7().hex}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        self._file = os.fdopen(os.open(self._temporary, flags, 0o600, dir_fd=folder), "wb")
        self._is_open = True

    def write(self, piece: bytes) -> None:
        """Append."""
        self._file.write(piece)

    def publish(self) -> None:
        """Link the whole file under its name, unless there is one."""
        self._file.flush()
        os.fsync(self._file.fileno())
        folder = self._folder
        os.link(self._temporary, self._name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)

    def discard(self) -> None:
        """Remove the temporary name, and close."""
        if not self._is_open:
            return
        self._is_open = False
        try:
            os.unlink(self._temporary, dir_fd=self._folder)
        finally:
            os.close(self._folder)
            with _ignoring():
                self._file.close()


@contextmanager
def _ignoring() -> Iterator[None]:
    """Swallow what closing a discarded file says: its last bytes may not fit on the disk."""
    try:
        yield
    except OSError:
        return


def _make(segment: str, folder: int) -> None:
    try:
        os.mkdir(segment, mode=0o700, dir_fd=folder)
    except FileExistsError:
        return
