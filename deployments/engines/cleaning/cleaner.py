"""One text through every step: characters, repeated paragraphs, personal data."""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from deployments.engines.cleaning.characters import clean_characters
from deployments.engines.cleaning.duplicates import Match, find_duplicates
from deployments.engines.cleaning.options import (
    MAX_REPORTED,
    Cleaned,
    CleanOptions,
    Draft,
    Duplicate,
    Redaction,
    Removed,
)
from deployments.engines.cleaning.personal import find_personal, redact

MIN_DUPLICATE_CHARACTERS = 40
"""A shorter paragraph that comes twice is a heading or a list's entry, and stays."""

_PARAGRAPH_BORDER = re.compile(r"\n(?:[^\S\n]*\n)+")


def clean(draft: Draft, options: CleanOptions) -> Cleaned:
    """Return a text as clean as the options ask for.

    Paragraphs are what empty lines separate. Of equal ones the first stays.
    """
    removed = Removed()
    text = clean_characters(draft.text, options, removed)
    duplicates: list[Duplicate] = []
    if options.duplicates != "none":
        text, duplicates = _without_repeats(text, _min_similarity(options))
    found = find_personal(text, options.redact, options.phone_regions) if options.redact else []
    text, placed = redact(text, found)
    removed.num_duplicates = len(duplicates)
    shift = _Shift(found, placed)
    removed.duplicates = [shift.moved(one) for one in duplicates[:MAX_REPORTED]]
    removed.redactions = placed[:MAX_REPORTED]
    removed.personal = dict(Counter(one.kind for one in placed))
    return Cleaned(text, _clean_title(draft.title, options), removed)


def compare(texts: Sequence[str], options: CleanOptions) -> list[Match | None]:
    """Return for each text the earlier one that it repeats."""
    return find_duplicates(texts, _min_similarity(options))


def _min_similarity(options: CleanOptions) -> float | None:
    return options.similarity if options.duplicates == "near" else None


def _clean_title(title: str, options: CleanOptions) -> str:
    if not title:
        return title
    title = clean_characters(title, options, Removed())
    if options.redact:
        title, _ = redact(title, find_personal(title, options.redact, options.phone_regions))
    return " ".join(title.split())


def _without_repeats(text: str, min_similarity: float | None) -> tuple[str, list[Duplicate]]:
    spans = _paragraphs(text)
    long = [n for n, (start, end) in enumerate(spans) if end - start >= MIN_DUPLICATE_CHARACTERS]
    matches = find_duplicates([text[slice(*spans[n])] for n in long], min_similarity)
    repeats = {n: match for n, match in zip(long, matches, strict=True) if match is not None}
    if not repeats:
        return text, []
    parts: list[str] = []
    new_spans: dict[int, tuple[int, int]] = {}
    duplicates: list[Duplicate] = []
    length = end_before = 0
    for number, (start, end) in enumerate(spans):
        if number in repeats:
            match = repeats[number]
            original = new_spans[long[match.index]]
            duplicates.append(
                Duplicate(match.kind, match.similarity, length, end - start, *original)
            )
        else:
            border = text[end_before:start]
            parts += [border, text[start:end]]
            new_spans[number] = (length + len(border), length + len(border) + end - start)
            length = new_spans[number][1]
        end_before = end
    return "".join(parts), duplicates


def _paragraphs(text: str) -> list[tuple[int, int]]:
    """Return the spans between empty lines."""
    spans, start = [], 0
    for border in _PARAGRAPH_BORDER.finditer(text):
        spans.append((start, border.start()))
        start = border.end()
    return [*spans, (start, len(text))]


class _Shift:
    """Moves positions from before redaction to after it."""

    def __init__(self, found: Sequence[Redaction], placed: Sequence[Redaction]) -> None:
        self._ends = [one.end for one in found]
        self._moves = [0, *(new.end - old.end for old, new in zip(found, placed, strict=True))]

    def moved(self, one: Duplicate) -> Duplicate:
        position, start, end = (
            at + self._moves[bisect_right(self._ends, at)]
            for at in (one.position, one.start, one.end)
        )
        return replace(one, position=position, start=start, end=end)
