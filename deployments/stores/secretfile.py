"""Small secret files of the state folder: whole or absent, and readable by their owner only.

Where the disk does not take them, StoreUnavailable is raised and nothing is left behind.
"""

import os
from pathlib import Path

import uuid_utils

from deployments.stores.sql_errors import files_translated


def write_secret(path: Path, content: bytes) -> None:
    """Replace a file by one that is on the disk, with its name, when this returns."""
    with files_translated():
        temporary = _written(path, content)
        temporary.replace(path)
        _sync(path.parent)


def create_secret(path: Path, content: bytes) -> bool:
    """Create a file unless it exists; of many processes, exactly one gets True."""
    with files_translated():
        temporary = _written(path, content)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        _sync(path.parent)
        return True


def _written(path: Path, content: bytes) -> Path:
    """Return a new file beside `path` that holds the content, on the disk."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid_utils.uuid7().hex}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
