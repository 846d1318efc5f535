"""Where the words of a query stand in a text, by the same folding as the lexical index."""

import unicodedata
from collections.abc import Iterator, Set

from deployments.stores.tokens import MAX_WORD_LENGTH, folded, spans

Span = tuple[int, int]


def highlights(terms: Set[str], text: str) -> tuple[Span, ...]:
    """Return the spans `text[start:end]` of the terms, in code points, in order and apart.

    Args:
        terms: as `tokens` yields them.
        text: as it is stored.
    """
    origins: list[int] = []
    letters: list[str] = []
    for position, character in enumerate(text):
        of_character = folded(character)
        letters.append(of_character)
        origins += [position] * len(of_character)
    found: list[Span] = []
    for start, end in _matches(terms, "".join(letters)):
        first, last = origins[start], _end(text, origins[end - 1])
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return tuple(found)


def _matches(terms: Set[str], text: str) -> Iterator[Span]:
    lengths = sorted({len(term) for term in terms}, reverse=True)
    for start, end, is_unspaced in spans(text):
        if not is_unspaced:
            if text[start:end][:MAX_WORD_LENGTH] in terms:
                yield start, end
            continue
        for at in range(start, end):
            for length in lengths:
                if at + length <= end and text[at : at + length] in terms:
                    yield at, at + length
                    break


def _end(text: str, last: int) -> int:
    """Return the end of a character together with the marks on it."""
    end = last + 1
    while end < len(text) and unicodedata.combining(text[end]):
        end += 1
    return end
