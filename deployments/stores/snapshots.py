"""Snapshots: a follower's indexes on the disk, so that a start need not read the whole log.

`<root>/<collection id>/<index>-of-<total>/<sequence>/` is written beside, put on the disk, renamed
into place and never changed. Any process may read it; one at a time writes. What is damaged or
somebody else's is refused and removed: the database has everything.
"""

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import uuid_utils

from deployments.errors import StoreUnavailable
from deployments.stores.buckets import Shard
from deployments.stores.changes import Head
from deployments.stores.follower import Follower
from deployments.stores.indexes import Indexes
from deployments.stores.manifest import (
    Damaged,
    Identity,
    check_files,
    check_identity,
    read_manifest,
    sync_folder,
    write_manifest,
)
from deployments.stores.workspace import Workspace, holding

log = logging.getLogger(__name__)

LOCK = ".lock"
TEMPORARY = ".new-"
MAX_TRIES = 3
"""How often a snapshot may be replaced by a newer one while it is read."""

PURGE_TIMEOUT_S = 120.0
"""How long to wait for another process that writes a snapshot; of 1.5 GB it takes seconds."""

OTHER_TOTAL_S = 86_400.0
"""How long snapshots of another number of shards stay: a restart may go back to it."""


class Snapshots:
    """Writes, finds and removes snapshots below `root`; safe for threads and processes."""

    def __init__(self, root: Path, workspace: Workspace, shard: Shard) -> None:
        """Touch nothing yet."""
        self._root = root
        self._workspace = workspace
        self._shard = shard
        self.num_saved = 0
        self.num_loaded = 0
        self.num_refused = 0

    def newest(self, collection_id: str) -> int | None:
        """Return the sequence number of the newest snapshot, unread."""
        return max(self._sequences(collection_id), default=None)

    def save(self, follower: Follower, is_wanted: Callable[[], bool]) -> bool:
        """Write a snapshot of a follower; return False if somebody else does, or none is wanted.

        Searches go on; the log is not followed while the indexes' files are written, but while
        they are hashed and put on the disk.

        Args:
            follower: one that has followed.
            is_wanted: asked just before it shows, whether its epoch is still the collection's.

        Raises:
            OSError: the disk is full, or refuses.
        """
        parent = self._parent(follower.collection_id)
        with holding(parent / LOCK) as is_held:
            if not is_held:
                return False
            for leftover in parent.glob(TEMPORARY + "*"):
                shutil.rmtree(leftover, ignore_errors=True)
            temporary = parent / (TEMPORARY + uuid_utils.uuid7().hex)
            try:
                sequence, num_changed = _write(follower, temporary)
                if sequence in self._sequences(follower.collection_id) or not is_wanted():
                    return False
                temporary.rename(parent / str(sequence))
                sync_folder(parent)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            for other in self._sequences(follower.collection_id):
                if other < sequence:
                    shutil.rmtree(parent / str(other), ignore_errors=True)
        follower.saved_up_to(sequence, follower.num_changed - num_changed)
        self.num_saved += 1
        return True

    def restore(self, follower: Follower, head: Head) -> bool:
        """Give an empty follower what the newest usable snapshot holds; return whether there was.

        The caller holds `follower.following`.
        """
        for _ in range(MAX_TRIES):
            sequence = self.newest(head.id)
            if sequence is None:
                return False
            folder = self._folder(head.id, sequence)
            try:
                indexes = self._load(folder, sequence, head)
                follower.restore(indexes, sequence)
            except FileNotFoundError:
                if folder.exists():
                    self._refuse(folder, "files are missing")
            except Damaged as error:
                self._refuse(folder, str(error))
            except OSError as error:
                log.warning("snapshot of %s cannot be read: %s", head.id, type(error).__name__)
                return False
            else:
                self.num_loaded += 1
                return True
        return False

    def refuse(self, follower: Follower) -> None:
        """Remove the snapshot that a follower came from: what it holds is not the database's."""
        folder = self._folder(follower.collection_id, follower.saved_sequence)
        self._refuse(folder, "it disagrees with the database")

    def remove_older(self, collection_id: str, epoch: float) -> None:
        """Remove every shard's snapshots of epochs before `epoch`, and what is half written.

        Raises:
            StoreUnavailable: another process goes on writing one; safe to retry.
        """
        for parent in self._parents(collection_id):
            with holding(parent / LOCK, PURGE_TIMEOUT_S) as is_held:
                if not is_held:
                    raise StoreUnavailable("a snapshot is being written")
                for folder in parent.iterdir():
                    if folder.is_dir() and _epoch(folder) < epoch:
                        shutil.rmtree(folder)

    def sweep(self, read_heads: Callable[[], Mapping[str, Head]]) -> None:
        """Remove the snapshots that no collection can use.

        Args:
            read_heads: returns those of all collections, by id; asked after the folders are listed,
                so that a new collection's is known.
        """
        folders = list(self._root.iterdir()) if self._root.is_dir() else []
        heads = read_heads()
        for folder in folders:
            head = heads.get(folder.name)
            if head is None:
                shutil.rmtree(folder, ignore_errors=True)
                continue
            for parent in self._parents(head.id):
                if not parent.name.endswith(f"-of-{self._shard.total}") and _is_old(parent):
                    shutil.rmtree(parent, ignore_errors=True)
                    continue
                for snapshot in parent.iterdir():
                    if snapshot.name.isdecimal() and not _is_useful(snapshot, head):
                        shutil.rmtree(snapshot, ignore_errors=True)

    def _load(self, folder: Path, sequence: int, head: Head) -> Indexes:
        content = read_manifest(folder)
        check_identity(content, Identity.of(head, self._shard))
        if content["sequence"] != sequence or not head.log_start <= sequence <= head.sequence:
            raise Damaged("another sequence")
        working = self._workspace.new_folder()
        if working is None:
            raise OSError("no working folder")
        try:
            check_files(folder, content, {Indexes.LEXICAL: working})
            indexes = Indexes.load(folder, head, self._workspace, working)
            if len(indexes.dense) != content["num_chunks"]:
                raise Damaged("another number of chunks")
        except BaseException as error:
            shutil.rmtree(working, ignore_errors=True)
            if isinstance(error, OSError | Damaged | KeyboardInterrupt | SystemExit):
                raise
            # tantivy's panics are BaseExceptions; whatever a library says of a file is its damage
            raise Damaged(f"it does not load: {type(error).__name__}") from error
        return indexes

    def _refuse(self, folder: Path, reason: str) -> None:
        self.num_refused += 1
        log.warning("snapshot refused and removed: %s: %s", folder.parent.parent.name, reason)
        shutil.rmtree(folder, ignore_errors=True)

    def _folder(self, collection_id: str, sequence: int) -> Path:
        return self._parent(collection_id) / str(sequence)

    def _parent(self, collection_id: str) -> Path:
        assert collection_id.replace("_", "").isalnum(), "ids are ours"
        return self._root / collection_id / f"{self._shard.index}-of-{self._shard.total}"

    def _parents(self, collection_id: str) -> list[Path]:
        folder = self._root / collection_id
        return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []

    def _sequences(self, collection_id: str) -> list[int]:
        parent = self._parent(collection_id)
        names = [path.name for path in parent.iterdir()] if parent.is_dir() else []
        return [int(name) for name in names if name.isdecimal()]


def _write(follower: Follower, folder: Path) -> tuple[int, int]:
    """Write everything but the name; return the sequence number, and how much had changed."""
    folder.mkdir(mode=0o700)
    links = folder / ".links"
    links.mkdir(mode=0o700)
    with follower.still() as indexes:
        sequence, num_chunks = follower.sequence, follower.num_chunks
        write = indexes.save(folder, links)
        identity = Identity.of(follower.head, follower.shard)
        num_changed = follower.num_changed
    write()
    shutil.rmtree(links)
    write_manifest(folder, identity, sequence, num_chunks)
    return sequence, num_changed


def _epoch(folder: Path) -> float:
    """Return the epoch of a snapshot; what cannot be read is as old as can be."""
    with suppress(Damaged, OSError, KeyError):
        return int(read_manifest(folder)["epoch"])
    return -1


def _is_old(folder: Path) -> bool:
    return time.time() - folder.stat().st_mtime > OTHER_TOTAL_S


def _is_useful(folder: Path, head: Head) -> bool:
    with suppress(Damaged, OSError):
        content: dict[str, Any] = read_manifest(folder)
        is_current = content.get("epoch") == head.epoch
        return is_current and head.log_start <= int(folder.name)
    return False
