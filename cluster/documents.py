"""The files that `ingest` sends: which ones, under which ids, in which batches."""

import hashlib
import os
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from cluster.errors import OperatorError

SUFFIXES = frozenset(
    {".txt", ".md", ".markdown", ".html", ".htm", ".pdf", ".docx", ".xlsx", ".pptx"}
)
MAX_BATCH_DOCUMENTS = 32
# Base64 adds a third; the ingress takes 32 MiB, and small batches show progress.
MAX_BATCH_BYTES = 4 * 1024 * 1024

_DOCUMENT_ID = re.compile(r"\w[\w.:@/ -]{0,199}")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to send: `document_id` is its path below the folder that was named."""

    path: Path
    document_id: str
    num_bytes: int

    def document(self) -> dict[str, Any]:
        """Return the file as `/v1/data/index` takes it.

        Raises:
            OSError: the file cannot be read.
        """
        content = b64encode(self.path.read_bytes()).decode("ascii")
        return {
            "id": self.document_id,
            "file": {"filename": self.path.name, "content_base64": content},
        }


def find_files(paths: Iterable[Path], glob: str) -> list[SourceFile]:
    """Return the files named, and those below the folders named that can hold text.

    Args:
        paths: files are taken whatever their kind; folders are walked, hidden entries left out.
        glob: matched against the path below the folder, or the file's name; "" matches all.

    Raises:
        OperatorError: a path does not exist.
    """
    found: dict[str, SourceFile] = {}
    for path in paths:
        if not path.exists():
            raise OperatorError(f"{path} does not exist")
        for file in [path] if path.is_file() else _walk(path, glob):
            relative = str(file.resolve().relative_to(path.resolve().parent))
            identity = document_id(relative)
            found.setdefault(identity, SourceFile(file, identity, file.stat().st_size))
    return [found[identity] for identity in sorted(found)]


def _walk(folder: Path, glob: str) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            file = Path(parent, name)
            relative = str(file.relative_to(folder))
            is_wanted = not glob or fnmatch(relative, glob) or fnmatch(name, glob)
            is_visible = not name.startswith(".") and not file.is_symlink()
            if is_visible and is_wanted and file.suffix.lower() in SUFFIXES:
                yield file


def document_id(relative: str) -> str:
    """Return the id of a file: its path where that is a valid id, else a name with a hash."""
    if _DOCUMENT_ID.fullmatch(relative):
        return relative
    digest = hashlib.sha256(relative.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    readable = re.sub(r"[^\w.-]+", "-", Path(relative).name).strip("-.")[:120]
    return f"{digest}-{readable}" if readable else digest


def batches(files: Sequence[SourceFile]) -> Iterator[list[SourceFile]]:
    """Yield the files in order, bounded by count and bytes; a big file is a batch by itself."""
    batch: list[SourceFile] = []
    for file in files:
        is_full = len(batch) == MAX_BATCH_DOCUMENTS
        if batch and (
            is_full or sum(f.num_bytes for f in batch) + file.num_bytes > MAX_BATCH_BYTES
        ):
            yield batch
            batch = []
        batch.append(file)
    if batch:
        yield batch
