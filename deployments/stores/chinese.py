"""Chinese runs of characters to the words that a query asks for and a document is found by.

A document has every character and every pair besides its words, so that a query finds it however
either was cut; the words make the ranking better, as pairs across words no longer count.
"""

from collections.abc import Iterator
from itertools import pairwise

import rjieba

FUNCTION_CHARACTERS = frozenset(
    "的了是在有和与及就都而着也很吗呢吧啊呀么之其这那我你他她它们不个把被让给对为以于到从"
)
"""Words of one character that say nothing about a subject."""


def query_words(run: str) -> Iterator[str]:
    """Yield what a query's run asks for: words, and of longer ones their parts too."""
    singles = ""
    for word in rjieba.cut(run):
        if len(word) == 1:
            singles += word
            continue
        yield from _singles(singles)
        singles = ""
        yield word
        if len(word) > 2:
            parts = [part for part in rjieba.cut_for_search(word) if part != word]
            yield from parts
            if not any(len(part) == 2 for part in parts):
                yield from pairs(word)
    yield from _singles(singles)


def document_words(run: str) -> Iterator[str]:
    """Yield the words of a document's run that are no pairs or characters."""
    return (word for word in rjieba.cut_for_search(run) if len(word) > 2)


def pairs(run: str) -> Iterator[str]:
    """Yield each two neighbouring characters."""
    return map("".join, pairwise(run))


def _singles(characters: str) -> Iterator[str]:
    """Yield neighbouring words of one character: unknown names are cut into such."""
    if len(characters) < 2:
        yield from characters
        return
    yield from pairs(characters)
    yield from (one for one in characters if one not in FUNCTION_CHARACTERS)
