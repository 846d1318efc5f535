"""Extraction in a child process with limits, so that a hostile file harms nobody but itself."""

import asyncio

from deployments.engines.extraction.detection import detect
from deployments.engines.extraction.document import MAX_TEXT_CHARACTERS, Extracted
from deployments.engines.extraction.extract import extract_text
from deployments.engines.sandbox import run_limited

_MAX_ANSWER_BYTES = 4 * MAX_TEXT_CHARACTERS + 65_536
"""UTF-8 takes at most four bytes for a character; the rest is the title and JSON's own."""


async def extract_in_child(data: bytes, filename: str, timeout_s: float = 60.0) -> Extracted:
    """Return a file's text and title; only plain text and Markdown are read in this process.

    A cancelled call kills its child.

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
    fields = await run_limited(
        "deployments.engines.extraction",
        kind,
        data=data,
        timeout_s=timeout_s,
        max_answer_bytes=_MAX_ANSWER_BYTES,
    )
    return Extracted(**fields)
