"""A child process with limits, so that hostile input harms nobody but the child that reads it.

The parent gives it bytes and gets a JSON object; it knows nothing of what the child does.
"""

import asyncio
import json
import os
import signal
import sys
from asyncio import AbstractEventLoop, Semaphore
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import deployments
from deployments.errors import Overloaded, UnreadableDocument

MAX_CHILDREN = 2
MAX_WAITING = 32

_TOO_LONG = "the document takes too long to read"

_slots: WeakKeyDictionary[AbstractEventLoop, Semaphore] = WeakKeyDictionary()
_num_waiting = 0


async def run_limited(
    module: str, *arguments: str, data: bytes, timeout_s: float, max_answer_bytes: int
) -> dict[str, Any]:
    """Return what `python -m module arguments` answers to `data`.

    At most two children run at once in an event loop. A cancelled call kills its child.

    Args:
        module: one of this package, which calls `sandboxed.answer`.
        arguments: its command line.
        data: its standard input.
        timeout_s: for the child, not counting the wait for a free one.
        max_answer_bytes: a longer answer is refused.

    Raises:
        UnreadableDocument: the child says what is wrong, died, or took too long.
        Overloaded: too many callers are waiting.
    """
    async with _Slot():
        try:
            async with asyncio.timeout(timeout_s):
                return await _run([module, *arguments], data, max_answer_bytes)
        except TimeoutError:
            raise UnreadableDocument(_TOO_LONG) from None


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


async def _run(command: list[str], data: bytes, max_answer_bytes: int) -> dict[str, Any]:
    child = await asyncio.create_subprocess_exec(
        *[sys.executable, "-P", "-B", "-m", *command],
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        env=_environment(),
        cwd="/",
    )
    try:
        answer, _ = await asyncio.gather(_read(child, max_answer_bytes), _write(child, data))
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


async def _read(child: Process, max_bytes: int) -> bytes:
    assert child.stdout is not None
    chunks, num_bytes = [], 0
    while chunk := await child.stdout.read(1 << 20):
        num_bytes += len(chunk)
        if num_bytes > max_bytes:
            raise UnreadableDocument("the file holds more text than a document may have")
        chunks.append(chunk)
    return b"".join(chunks)


def _parse(answer: bytes, status: int) -> dict[str, Any]:
    if status in (-signal.SIGXCPU, -signal.SIGKILL):
        raise UnreadableDocument(_TOO_LONG)
    try:
        fields: dict[str, Any] = json.loads(answer)
    except ValueError:
        raise UnreadableDocument("the document could not be read") from None
    if "error" in fields:
        raise UnreadableDocument(fields["error"])
    return fields
