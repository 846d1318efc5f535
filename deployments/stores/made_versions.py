"""The folders of versions that tunings made, in a backup: a tar file each.

They lie beside the database, not in it. It does not know what is in them.
"""

import shutil
import tarfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from deployments.errors import RagError
from deployments.stores.backup import BackupPart, Manifest
from deployments.stores.folders import BackupFolder

PREFIX, SUFFIX = "tuned.", ".tar"
BLOCK_BYTES = 1024 * 1024
END = bytes(2 * tarfile.BLOCKSIZE)
PART = ".part"
"""What the name of a folder ends with while it is written."""


def parts_of(root: Path) -> Mapping[str, BackupPart]:
    """Return by its file's name what writes each version below `root`; hidden folders are none."""
    if not root.is_dir():
        return {}
    folders = sorted(one for one in root.iterdir() if one.is_dir() and one.name[0] != ".")
    return {f"{PREFIX}{folder.name}{SUFFIX}": partial(_archived, folder) for folder in folders}


class Returned:
    """The versions of a checked backup, unpacked beside their place until it is certain."""

    def __init__(self, root: Path) -> None:
        self._root, self._part = root, root.with_name(f".{root.name}{PART}")

    def unpack(self, folder: BackupFolder, manifest: Manifest) -> None:
        """Unpack all of them; raises RagError when one is no archive of plain files."""
        self.discard()
        self._part.mkdir(mode=0o700)
        for entry in manifest.files:
            if entry.name.startswith(PREFIX) and entry.name.endswith(SUFFIX):
                name = entry.name.removeprefix(PREFIX).removesuffix(SUFFIX)
                with folder.open(entry.name) as source:
                    self._unpack_one(name, source, entry.name)

    def _unpack_one(self, name: str, source: object, file: str) -> None:
        if Path(name).name != name or name.startswith("."):
            raise RagError(f"{file} of the backup is of no version")
        try:
            with tarfile.open(fileobj=source, mode="r|") as archive:  # type: ignore[call-overload]
                archive.extractall(self._part / name, filter="data")
        except tarfile.TarError as error:
            raise RagError(f"{file} of the backup cannot be read") from error

    def publish(self) -> None:
        """Let them take the place of all versions that are there."""
        shutil.rmtree(self._root, ignore_errors=True)
        self._part.rename(self._root)

    def discard(self) -> None:
        """Remove what was unpacked, if it is not published."""
        shutil.rmtree(self._part, ignore_errors=True)


def _archived(folder: Path) -> Iterator[bytes]:
    """Yield a tar file of a folder's files; raises OSError when one changes meanwhile."""
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        with path.open("rb") as file:
            entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
            entry.size, entry.mode = path.stat().st_size, 0o600
            yield entry.tobuf()
            num_bytes = 0
            while block := file.read(BLOCK_BYTES):
                num_bytes += len(block)
                yield block
        if num_bytes != entry.size:
            raise OSError(f"{path.name} has changed while it was backed up")
        yield bytes(-num_bytes % tarfile.BLOCKSIZE)
    yield END
