"""Cleaning in a child process: its work is bound in time and memory, and keeps no caller waiting.

One hostile text does not spoil the others of its call.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any

from deployments.engines.cleaning.duplicates import Match
from deployments.engines.cleaning.options import (
    MAX_REPORTED,
    Cleaned,
    CleanOptions,
    Draft,
    Duplicate,
    Redaction,
    Removed,
)
from deployments.engines.sandbox import run_limited
from deployments.errors import UnreadableDocument

BATCH_CHARACTERS = 1_000_000
TIMEOUT_S = 120.0

_REPORT_BYTES = 200 * 2 * MAX_REPORTED
_GROWTH = 18 * 4
"""NFKC makes at most 18 characters of one (U+FDFA), and UTF-8 four bytes of each."""


async def clean_in_child(
    drafts: Sequence[Draft], options: CleanOptions
) -> list[Cleaned | UnreadableDocument]:
    """Return each draft cleaned, in order, or why it could not be.

    Raises:
        Overloaded: too many callers are waiting.
    """
    cleaned: list[Cleaned | UnreadableDocument] = []
    for batch in _batches(drafts):
        cleaned += await _clean(batch, options)
    return cleaned


async def compare_in_child(texts: Sequence[str], options: CleanOptions) -> list[Match | None]:
    """Return for each text the earlier one that it repeats, exactly or (if asked) nearly.

    Raises:
        UnreadableDocument: they take too long to compare.
        Overloaded: too many callers are waiting.
    """
    if len(texts) < 2 or options.duplicates == "none":
        return [None] * len(texts)
    fields = await _run("compare", options, {"texts": texts}, 200 * (1 + len(texts)))
    return [match and Match(**match) for match in fields["matches"]]


async def _clean(
    drafts: Sequence[Draft], options: CleanOptions
) -> list[Cleaned | UnreadableDocument]:
    """Clean a batch in one child; where that fails, each half of it in its own."""
    size = sum(len(draft.text) + len(draft.title) for draft in drafts)
    pairs = [[draft.text, draft.title] for draft in drafts]
    most = _GROWTH * size + _REPORT_BYTES * len(drafts)
    try:
        fields = await _run("clean", options, {"drafts": pairs}, most)
    except UnreadableDocument as error:
        if len(drafts) == 1:
            return [error]
        half = len(drafts) // 2
        return [*await _clean(drafts[:half], options), *await _clean(drafts[half:], options)]
    return [_cleaned(one) for one in fields["cleaned"]]


async def _run(
    job: str, options: CleanOptions, asked: dict[str, Any], max_answer_bytes: int
) -> dict[str, Any]:
    asked = {"options": dataclasses.asdict(options), **asked}
    return await run_limited(
        "deployments.engines.cleaning",
        job,
        data=json.dumps(asked).encode(),
        timeout_s=TIMEOUT_S,
        max_answer_bytes=max_answer_bytes,
    )


def _cleaned(fields: dict[str, Any]) -> Cleaned | UnreadableDocument:
    if not fields["text"].strip():
        return UnreadableDocument("nothing of the text is left when it is clean")
    removed = fields["removed"]
    removed["duplicates"] = [Duplicate(**one) for one in removed["duplicates"]]
    removed["redactions"] = [Redaction(**one) for one in removed["redactions"]]
    return Cleaned(fields["text"], fields["title"], Removed(**removed))


def _batches(drafts: Sequence[Draft]) -> Iterator[list[Draft]]:
    batch: list[Draft] = []
    room = BATCH_CHARACTERS
    for draft in drafts:
        if batch and len(draft.text) > room:
            yield batch
            batch, room = [], BATCH_CHARACTERS
        batch.append(draft)
        room -= len(draft.text)
    if batch:
        yield batch
