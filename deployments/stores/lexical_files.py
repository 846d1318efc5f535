"""The files of a tantivy index: which of them count, and how they are copied.

A segment's files never change, so a link is as good as a copy; the two lists of files are replaced
at each commit. Files that no segment needs any more hold terms of deleted chunks and stay behind.
"""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

META = "meta.json"
MANAGED = ".managed.json"


def index_files(folder: Path) -> list[str]:
    """Return the names of the files of the last commit."""
    segments = json.loads((folder / META).read_text())["segments"]
    prefixes = tuple(segment["segment_id"].replace("-", "") for segment in segments)
    names = [file.name for file in folder.iterdir()]
    return sorted(name for name in names if prefixes and name.startswith(prefixes))


def copy_index(source: Path, target: Path) -> None:
    """Link the files of the last commit, or copy them where that cannot be."""
    names = index_files(source)
    for name in names:
        try:
            os.link(source / name, target / name)
        except OSError:
            shutil.copyfile(source / name, target / name)
    shutil.copyfile(source / META, target / META)
    (target / MANAGED).write_text(json.dumps([*names, META]))


def num_file_bytes(folder: Path) -> int:
    """Return the bytes of all files; tantivy may remove some meanwhile."""
    num_bytes = 0
    for file in folder.iterdir():
        with suppress(FileNotFoundError):
            num_bytes += file.stat().st_size
    return num_bytes
