"""Where a text may be cut: paragraphs and headings, sentences, lines. It counts no tokens."""

import re
from array import array
from bisect import bisect_left, bisect_right
from enum import IntEnum

import regex  # type: ignore[import-untyped]

_BORDER = re.compile(
    r"""
      (?P<paragraph> \n[^\S\n]*\n\s* | \f\s* | \u2029\s* | \n(?=\#{1,6}\s) )
    | (?P<sentence>  (?<![.!?…])[.!?…]++ ["'”’»)\]]* \s+ (?=[^\sa-z])
                   | (?:[。！？｡．؟۔।॥።။។։]|…(?=…))+ …? ["'”’»)\]」』）】〉》]* \s*
                   | (?<![!?])[!?]++ (?=[\u3040-\u30ff\u3400-\u9fff]) )
    | (?P<line>      \n\s* )
    """,
    re.VERBOSE,
)
"""A border lies at the end of a match. Latin sentences need white space and no small letter after
it (so that "e.g. this" goes on); Chinese, Japanese, Arabic, Indic and other full stops need
neither, nor does the double ellipsis. The look-behinds keep the search linear on endless rows of
dots and marks."""

_HEADING = re.compile(r"\#{1,6}[^\S\n]")

_GRAPHEME = regex.compile(r"\X")

_LONGEST_GRAPHEME = 64
"""Code points looked at around a cut; longer clusters are not language."""


class Level(IntEnum):
    """How good a border is."""

    LINE = 0
    SENTENCE = 1
    PARAGRAPH = 2


class Borders:
    """The borders of one text, as code point offsets in order; none follows a heading."""

    def __init__(self, text: str) -> None:
        self._by_level = {level: array("q") for level in Level}
        line = searched = 0
        for match in _BORDER.finditer(text):
            level = Level[str(match.lastgroup).upper()]
            if level != Level.SENTENCE:
                # Searched from where the last search ended: a line may be the whole text.
                line = max(line, text.rfind("\n", searched, match.start()) + 1)
                searched = match.start()
                if _HEADING.match(text, line):
                    continue
            for lower in range(level + 1):
                self._by_level[Level(lower)].append(match.end())

    def last(self, level: Level, after: int, until: int) -> int | None:
        """Return the last border of a level, or of a better one, in `(after, until]`."""
        borders = self._by_level[level]
        index = bisect_right(borders, until) - 1
        return borders[index] if index >= 0 and borders[index] > after else None

    def first(self, level: Level, start: int, before: int) -> int | None:
        """Return the first border of a level, or of a better one, in `[start, before)`."""
        borders = self._by_level[level]
        index = bisect_left(borders, start)
        return borders[index] if index < len(borders) and borders[index] < before else None


def is_grapheme_border(text: str, position: int) -> bool:
    """Tell whether a cut at `position` leaves whole what a reader sees as one character."""
    if not 0 < position < len(text):
        return True
    start = max(0, position - _LONGEST_GRAPHEME)
    window = text[start : position + _LONGEST_GRAPHEME]
    return any(start + match.start() == position for match in _GRAPHEME.finditer(window))
