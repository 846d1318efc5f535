"""Cuts a text into segments that fit a model, at the best borders there are. It knows no model.

Each segment is filled as far as the limit allows, back to the last paragraph border, else sentence,
line, word or token border; a worse border is taken where a better one would leave it rather empty.
"""

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import Protocol

from deployments.engines.texts.borders import Borders, Level, is_grapheme_border
from deployments.types import Segment

_MIN_FILL = ((Level.PARAGRAPH, 0.5), (Level.SENTENCE, 0.25), (Level.LINE, 0.25))
"""The part of the limit that a segment must hold to end at a border of this level."""

_BLOCK = 100_000
"""Characters tokenised at once: a token costs a hundred bytes while its text is being tokenised."""


class Tokens(Protocol):
    """What segmentation asks of a tokenizer."""

    @property
    def num_special(self) -> int:
        """Return how many special tokens the model adds to each segment."""
        ...

    def spans(self, text: str) -> Sequence[tuple[int, int]]:
        """Return the code points `[start, end)` of each token, in order, special ones left out."""
        ...


class Segmenter:
    """Cuts texts into segments of at most `max_tokens`, special tokens included.

    Consecutive segments share up to `overlap_tokens` tokens, and never more than half a segment.
    """

    def __init__(self, tokens: Tokens, max_tokens: int, overlap_tokens: int) -> None:
        self._tokens = tokens
        self._limit = max_tokens - tokens.num_special
        self._overlap = min(overlap_tokens, self._limit // 2)

    def segment(self, text: str) -> list[Segment]:
        """Return the segments in order; together they hold every character but white space."""
        cut = _Cut(self._tokens, text, self._limit, self._overlap)
        segments: list[Segment] = []
        start, reached = cut.next_visible(0), 0
        while reached < len(text) and start < len(text):
            segment, border = cut.segment_at(start, reached)
            if border <= reached:
                # Re-tokenising left nothing new: go on without an overlap.
                start = cut.next_visible(reached)
                segment, border = cut.segment_at(start, reached)
            segments.append(segment)
            reached = cut.next_visible(border)
            start = cut.next_visible(cut.overlap_start(segment.start, border))
        return segments


class _Cut:
    """One text being cut."""

    def __init__(self, tokens: Tokens, text: str, limit: int, overlap: int) -> None:
        self._tokens = tokens
        self._text = text
        self._limit = limit
        self._overlap = overlap
        self._starts = _token_starts(tokens, text)
        self._borders = Borders(text) if len(self._starts) > limit else Borders("")

    def next_visible(self, position: int) -> int:
        """Return the first position from here that is not white space, or the text's end."""
        while position < len(self._text) and self._text[position].isspace():
            position += 1
        return position

    def segment_at(self, start: int, reached: int) -> tuple[Segment, int]:
        """Return the segment from `start`, and the border where it was cut.

        The border lies after `reached`, unless re-tokenising shows that too little fits.
        """
        first = bisect_left(self._starts, start)
        room = self._limit
        while True:
            hard = self._position(first + room)
            border = self._best_border(start, max(reached, start), hard)
            end = start + len(self._text[start:border].rstrip())
            num_tokens = len(self._tokens.spans(self._text[start:end]))
            if num_tokens <= self._limit or border <= start + 1:
                return Segment(start, end, num_tokens + self._tokens.num_special), border
            # Tokens at a cut may change (a word's tail is another token than the tail alone).
            room = max(self._count(start, border) - (num_tokens - self._limit), 0)
            if room == 0:
                return self._characters_at(start)

    def overlap_start(self, start: int, border: int) -> int:
        """Return where the next segment starts: at most the overlap before `border`."""
        if self._overlap == 0 or border >= len(self._text):
            return border
        earliest = self._position(bisect_left(self._starts, border) - self._overlap)
        earliest = max(earliest, start + 1)
        sentence = self._borders.first(Level.SENTENCE, earliest, border)
        if sentence is not None:
            return sentence
        first, last = (bisect_left(self._starts, at) for at in (earliest, border))
        candidates = self._starts[first:last]
        word = next((at for at in candidates if self._text[at - 1].isspace()), None)
        if word is not None:
            return word
        return next((at for at in candidates if is_grapheme_border(self._text, at)), border)

    def _best_border(self, start: int, reached: int, hard: int) -> int:
        if hard >= len(self._text):
            return len(self._text)
        for level, fill in _MIN_FILL:
            border = self._borders.last(level, reached, hard)
            if border is not None and self._count(start, border) >= fill * self._limit:
                return border
        first = bisect_left(self._starts, max(reached + 1, start + 1))
        candidates = self._starts[first : bisect_left(self._starts, hard)]
        candidates.append(hard)
        candidates = candidates[-(self._limit // 2) :]
        for is_good in (self._is_word_border, is_grapheme_border):
            for position in reversed(candidates):
                if is_good(self._text, position):
                    return position
        return hard

    def _characters_at(self, start: int) -> tuple[Segment, int]:
        """Return a segment of as many characters as fit, where not one token does."""
        end = start + 1
        while end < len(self._text):
            if len(self._tokens.spans(self._text[start : end + 1])) > self._limit:
                break
            end += 1
        num_tokens = len(self._tokens.spans(self._text[start:end]))
        return Segment(start, end, num_tokens + self._tokens.num_special), end

    def _position(self, token: int) -> int:
        """Return where a token starts; the text's end for one after the last."""
        return self._starts[max(token, 0)] if token < len(self._starts) else len(self._text)

    def _count(self, start: int, end: int) -> int:
        return bisect_left(self._starts, end) - bisect_left(self._starts, start)

    @staticmethod
    def _is_word_border(text: str, position: int) -> bool:
        return text[position - 1].isspace()


def _token_starts(tokens: Tokens, text: str) -> "array[int]":
    """Return where each token starts, tokenising block by block, cut at white space if possible."""
    starts: array[int] = array("q")
    begin = 0
    while begin < len(text):
        end = begin + _BLOCK
        if end < len(text):
            space = max(text.rfind(mark, begin + _BLOCK // 2, end) for mark in " \n")
            end = space if space > 0 else end
        starts.extend(begin + start for start, _ in tokens.spans(text[begin:end]))
        begin = end
    return starts
