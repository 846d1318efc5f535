"""What a snapshot says of itself: whose it is, and the size and hash of each of its files.

Damaged FAISS and Arrow files load silently, so nothing is opened whose hash does not match. Hashes
find damage, not forgery: who can write here can write the database too.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deployments.stores.buckets import Shard
from deployments.stores.changes import Head

FORMAT = 1
"""Grows whenever a file's meaning does: terms, columns, codes of vectors."""

FILE = "manifest.json"
BLOCK = 1024 * 1024
NUM_THREADS = 2
"""Source: a core hashes 1 GB/s, a disk reads about 2."""

MAX_MANIFEST_BYTES = 1024 * 1024


class Damaged(Exception):
    """A snapshot is not what it should be; the message names what, and no content."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a snapshot must agree with its collection in."""

    collection_id: str
    shard: tuple[int, int]
    epoch: int
    dim: int
    embedding_model: str
    metric: str
    kind: str
    storage: str
    format: int = FORMAT

    @classmethod
    def of(cls, head: Head, shard: Shard) -> "Identity":
        """Return the identity of a snapshot that would be written now."""
        return cls(
            collection_id=head.id,
            shard=(shard.index, shard.total),
            epoch=head.epoch,
            dim=head.dim,
            embedding_model=head.embedding_model,
            metric=head.metric,
            kind=head.index.kind,
            storage=head.index.storage,
        )


def write_manifest(folder: Path, identity: Identity, sequence: int, num_chunks: int) -> None:
    """Put every file of a folder and its folders on the disk, and then a manifest of them."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        entries = list(threads.map(_synced, paths))
    names = [str(path.relative_to(folder)) for path in paths]
    content = {
        **asdict(identity),
        "sequence": sequence,
        "num_chunks": num_chunks,
        "files": dict(zip(names, entries, strict=True)),
    }
    body = {"snapshot": content, "sha256": _digest(content)}
    with (folder / FILE).open("x") as file:
        json.dump(body, file)
        file.flush()
        os.fsync(file.fileno())
    for path in {folder, *(path.parent for path in paths)}:
        sync_folder(path)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return a manifest whose own hash matches; raises Damaged."""
    path = folder / FILE
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise Damaged("the manifest is too long")
        body = json.loads(path.read_bytes())
        content: dict[str, Any] = body["snapshot"]
        is_whole = set(body) == {"snapshot", "sha256"} and body["sha256"] == _digest(content)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Damaged("the manifest is no manifest") from error
    if not is_whole:
        raise Damaged("the manifest does not match its hash")
    return content


def check_identity(content: dict[str, Any], expected: Identity) -> None:
    """Raise Damaged, which names what differs, unless the snapshot belongs to this collection."""
    for name, value in asdict(expected).items():
        found = content.get(name)
        found = tuple(found) if isinstance(found, list) else found
        if found != value:
            raise Damaged(f"another {name}")


def check_files(folder: Path, content: dict[str, Any], copies: dict[str, Path]) -> None:
    """Raise Damaged unless every file, and no other, is there with its size and hash.

    Args:
        folder: the snapshot's.
        content: its manifest.
        copies: where to copy the files of some of its folders to, while they are read.
    """
    files: dict[str, list[Any]] = content["files"]
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
    if found != {FILE, *files}:
        raise Damaged("files are missing or too many")

    def check(name: str) -> None:
        parent = copies.get(str(Path(name).parent))
        copy = parent / Path(name).name if parent is not None else None
        if _hashed(folder / name, copy) != files[name]:
            raise Damaged("a file does not match its hash")

    _each(check, files)


def _each(check: Any, names: Iterable[str]) -> None:
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        for _ in threads.map(check, names):
            pass


def _synced(path: Path) -> list[Any]:
    """Put a file on the disk; return its size and hash."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return _hashed(path)


def _hashed(path: Path, copy: Path | None = None) -> list[Any]:
    """Return a file's size and SHA-256, of exactly the bytes that `copy` gets."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file, (copy or Path(os.devnull)).open("wb") as target:
        while block := file.read(BLOCK):
            digest.update(block)
            size += len(block)
            if copy is not None:
                target.write(block)
    return [size, digest.hexdigest()]


def _digest(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def sync_folder(path: Path) -> None:
    """Put the names in a folder on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
