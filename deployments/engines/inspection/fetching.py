"""A model of a hub is downloaded: resumed where it was left, and there only once it is whole.

What is half downloaded lies in a folder of another name, and is never loaded. Files are checked by
their size, and by their hash where the hub says it.
"""

import fcntl
import hashlib
import hmac
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import httpx

from deployments.engines.inspection.hub import (
    HubFile,
    Offer,
    Unreachable,
    check_status,
    client,
    place,
    reference,
    refused,
    unreachable,
)
from deployments.errors import Conflict, InsufficientResources

STILL_S = 60.0
"""How long nothing may come before a download has failed."""

RETRIES = 5
"""Connections in a row that may break and bring nothing."""

RETRY_S = 1.0
SPARE_BYTES = 1 << 30
"""What a download leaves free of the disk."""

BLOCK_BYTES = 1 << 20


class Stopped(Exception):
    """The download is not wanted any more; what came stays for the next one."""


class Fetch:
    """One download; `num_read` grows while `run` works in another thread."""

    def __init__(self, offer: Offer) -> None:
        self.offer = offer
        self.num_read = 0
        self._folder = place(offer.name, offer.commit)
        self._part = self._folder.with_name(f"{offer.commit}.part")
        self._is_wanted = True

    def stop(self) -> None:
        """Have `run` end with what has come."""
        self._is_wanted = False

    def run(self) -> Path:
        """Return the folder once all files are there. Blocks.

        Raises:
            Stopped: `stop` was called.
            Conflict: another process downloads the same; try again.
            InsufficientResources: the disk has no room.
            InvalidRequest: the hub does not give a file, gave another one, or nothing for long.
        """
        with self._alone():
            if not self._folder.is_dir():
                self._check_disk()
                for file in self.offer.files:
                    self._file(file)
                self._part.rename(self._folder)
        mark = reference(self.offer.name, self.offer.revision)
        part = mark.with_suffix(f".{os.getpid()}")
        part.write_text(self.offer.commit, encoding="ascii")
        part.replace(mark)
        return self._folder

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._folder.with_name(f"{self.offer.commit}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict("another process downloads this model just now") from None
            yield

    def _check_disk(self) -> None:
        self._part.mkdir(mode=0o700, exist_ok=True)
        missing = self.offer.num_bytes - sum(
            path.stat().st_size for path in self._part.rglob("*") if path.is_file()
        )
        free = shutil.disk_usage(self._part).free - SPARE_BYTES
        if missing > free:
            raise InsufficientResources(
                f"the download needs {missing / (1 << 30):.2f} GiB of disk; "
                f"{max(0, free) / (1 << 30):.2f} GiB are free, and "
                f"{SPARE_BYTES / (1 << 30):g} GiB kept"
            )

    def _file(self, file: HubFile) -> None:
        path = self._part / file.path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        if path.stat().st_size > file.num_bytes:
            os.truncate(path, 0)
        before, left = self.num_read, RETRIES
        while (size := path.stat().st_size) < file.num_bytes:
            self.num_read = before + size
            try:
                self._more(file, path, size)
            except httpx.ReadTimeout:
                raise refused(f"the download stood still for {STILL_S:g} s") from None
            except (httpx.RequestError, Unreachable) as error:
                left = RETRIES if path.stat().st_size > size else left - 1
                if not left:
                    raise unreachable(type(error).__name__) from None
                time.sleep(RETRY_S)
        self.num_read = before + file.num_bytes
        _check(path, file)

    def _more(self, file: HubFile, path: Path, size: int) -> None:
        url = f"/{self.offer.name}/resolve/{self.offer.commit}/{quote(file.path)}"
        headers = {"range": f"bytes={size}-", "accept-encoding": "identity"}
        with client(STILL_S) as http, http.stream("GET", url, headers=headers) as response:
            check_status(response)
            if response.status_code != httpx.codes.PARTIAL_CONTENT:
                self.num_read -= size
                size = 0  # this hub begins anew
            with path.open("r+b") as out:
                out.truncate(size)
                out.seek(size)
                for chunk in response.iter_bytes(BLOCK_BYTES):
                    if not self._is_wanted:
                        raise Stopped
                    size += len(chunk)
                    if size > file.num_bytes:
                        raise refused("the hub gives more of a file than it says")
                    out.write(chunk)
                    self.num_read += len(chunk)
                out.flush()
                os.fsync(out.fileno())
            if size < file.num_bytes:
                raise httpx.RemoteProtocolError("the file has ended too early")


def _check(path: Path, file: HubFile) -> None:
    """Raise InvalidRequest, and remove a file, unless it has the hash that the hub says."""
    if not file.sha256:
        return
    with path.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if not hmac.compare_digest(found, file.sha256):
        path.unlink()
        raise refused("a file has another SHA-256 than the hub says; try again")
