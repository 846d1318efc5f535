"""Extraction in a child process with limits, so that a hostile file harms nobody but itself."""

import asyncio
import json
import os
import signal
import sys
from asyncio import AbstractEventLoop, Semaphore
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from weakref import WeakKeyDictionary

import deployments
from deployments.engines.extraction.detection import Kind, detect
from deployments.engines.extraction.document import MAX_TEXT_CHARACTERS, Extracted
from deployments.engines.extraction.extract import extract_text
from deployments.errors import Overloaded, UnreadableDocument

MAX_CHILDREN = 2
MAX_WAITING = 32

_MAX_ANSWER_BYTES = 4 * MAX_TEXT_CHARACTERS + 65_536
"""UTF-8 takes at most four bytes for a character; the rest is the title and JSON's own."""

_slots: WeakKeyDictionary[AbstractEventLoop, Semaphore] = WeakKeyDictionary()
_num_waiting = 0


async def extract_in_child(data: bytes, filename: str, timeout_s: float = 60.0) -> Extracted:
    """Return a file's text and title; only plain text and Markdown are read in this process.

    At most two children run at once. A cancelled call kills its child.

    Args:
        data: the whole file.
        filename: its name; the extension decides only where the content does not.
        timeout_s: for the child, not counting the wait for a free one.

    Raises:
        UnreadableDocument: the message says what is wrong with the file.
        Overloaded: too many files are waiting.
    """
    kind = await asyncio.to_thread(detect, data, filename)
    if kind == "text":
        return await asyncio.to_thread(extract_text, data, filename)
    async with _Slot():
        try:
            async with asyncio.timeout(timeout_s):
                return await _run(data, kind)
        except TimeoutError:
            raise UnreadableDocument("the file takes too long to read") from None


class _Slot:
    """A place among the children of this event loop."""

    async def __aenter__(self) -> None:
        global _num_waiting
        if _num_waiting >= MAX_WAITING:
            error = Overloaded("too many files are waiting to be read")
            error.retry_after_s = 5
            raise error
        _num_waiting += 1
        try:
            await self._semaphore.acquire()
        finally:
            _num_waiting -= 1

    async def __aexit__(self, *_: object) -> None:
        self._semaphore.release()

    @property
    def _semaphore(self) -> Semaphore:
        return _slots.setdefault(asyncio.get_running_loop(), Semaphore(MAX_CHILDREN))


async def _run(data: bytes, kind: Kind) -> Extracted:
    module = "deployments.engines.extraction"
    command = [sys.executable, "-P", "-B", "-m", module, kind]
    child = await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=_environment(), cwd="/"
    )
    try:
        answer, _ = await asyncio.gather(_read(child), _write(child, data))
        status = await child.wait()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return _parse(answer, status)


def _environment() -> dict[str, str]:
    """Return what the child needs to import this package, and none of our secrets."""
    root = str(Path(str(deployments.__file__)).parents[1])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {"PYTHONPATH": os.pathsep.join(paths), "PATH": os.defpath, "LANG": "C.UTF-8"}


async def _write(child: Process, data: bytes) -> None:
    assert child.stdin is not None
    try:
        child.stdin.write(data)
        await child.stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        pass  # the child died; its status says why
    finally:
        child.stdin.close()


async def _read(child: Process) -> bytes:
    assert child.stdout is not None
    chunks, num_bytes = [], 0
    while chunk := await child.stdout.read(1 << 20):
        num_bytes += len(chunk)
        if num_bytes > _MAX_ANSWER_BYTES:
            raise UnreadableDocument("the file holds more text than a document may have")
        chunks.append(chunk)
    return b"".join(chunks)


def _parse(answer: bytes, status: int) -> Extracted:
    if status in (-signal.SIGXCPU, -signal.SIGKILL):
        raise UnreadableDocument("the file takes too long to read")
    try:
        fields = json.loads(answer)
    except ValueError:
        raise UnreadableDocument("the file could not be read") from None
    if "error" in fields:
        raise UnreadableDocument(fields["error"])
    return Extracted(**fields)
