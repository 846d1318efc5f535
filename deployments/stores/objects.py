"""Files in an object store, or wherever else `pyarrow.fs` and fsspec reach."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.fs as arrow_fs
import uuid_utils

from deployments.errors import InvalidRequest


class ObjectRoot:
    """A prefix, `scheme://bucket/prefix`."""

    def __init__(self, uri: str) -> None:
        self._fs, self._path = _opened(uri)

    def open(self, segments: Sequence[str]) -> BinaryIO:
        """Open an object for reading."""
        with _translated():
            return cast("BinaryIO", self._fs.open_input_file(self.path(segments)))

    def create(self, segments: Sequence[str]) -> "ObjectDraft":
        """Begin an object."""
        path = self.path(segments)
        if self.exists(segments):
            raise FileExistsError
        with _translated():
            self._fs.create_dir(path.rpartition("/")[0], recursive=True)
            return ObjectDraft(self._fs, path)

    def exists(self, segments: Sequence[str]) -> bool:
        """Return whether there is an object."""
        with _translated():
            info = self._fs.get_file_info(self.path(segments))
            return bool(info.type != arrow_fs.FileType.NotFound)

    def names(self) -> set[str]:
        """Return the names of what lies right below the prefix."""
        selector = arrow_fs.FileSelector(self.path([]), allow_not_found=True)
        with _translated():
            return {info.base_name for info in self._fs.get_file_info(selector)}

    def remove(self, segments: Sequence[str]) -> None:
        """Delete an object."""
        with _translated():
            self._fs.delete_file(self.path(segments))

    def path(self, segments: Sequence[str]) -> str:
        """Return the path of an object in the store."""
        return "/".join([self._path.rstrip("/"), *segments])


class ObjectDraft:
    """An object under another name until it is whole; moved at the end."""

    def __init__(self, fs: arrow_fs.FileSystem, path: str) -> None:
        self._fs = fs
        self._path = path
        self._temporary = f"{path}.{uuid_utils.uuid7().hex}.part"
        self._stream = fs.open_output_stream(self._temporary)
        self._is_open = True

    def write(self, piece: bytes) -> None:
        """Append."""
        with _translated():
            self._stream.write(piece)

    def publish(self) -> None:
        """Move the whole object to its name."""
        with _translated():
            self._stream.close()
            self._fs.move(self._temporary, self._path)
            self._is_open = False

    def discard(self) -> None:
        """Remove what was written, unless it was published."""
        if not self._is_open:
            return
        self._is_open = False
        with _translated():
            self._stream.close()
            self._fs.delete_file(self._temporary)


def _opened(uri: str) -> tuple[arrow_fs.FileSystem, str]:
    """Return the file system of a URI and the path in it: Arrow's own, else fsspec's.

    Raises:
        InvalidRequest: nothing here knows its scheme.
    """
    try:
        fs, path = arrow_fs.FileSystem.from_uri(uri)
    except pa.ArrowException:
        return _of_fsspec(uri)
    return fs, path


def _of_fsspec(uri: str) -> tuple[arrow_fs.FileSystem, str]:
    from fsspec.core import url_to_fs  # a second of imports that few need

    try:
        fs, path = url_to_fs(uri)
    except (ValueError, ImportError) as error:
        scheme = uri.partition("://")[0]
        raise InvalidRequest(f"nothing here reads {scheme}://") from error
    return arrow_fs.PyFileSystem(arrow_fs.FSSpecHandler(fs)), path


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except pa.ArrowException as error:
        raise OSError("the store refused") from error
