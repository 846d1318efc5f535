"""Text to index terms, the same for documents and queries.

Words are folded (case, width, accents). Scripts written without spaces become overlapping pairs
of characters, as in Lucene's CJK analyser: no dictionary, and every two-character word is found.
"""

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise

MAX_WORD_LENGTH = 64
"""Longer words (keys, hashes, base64) are indexed by their beginning."""

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_UNSPACED += "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_INDIC = "\u0900-\u0963\u0966-\u0dff"  # vowel signs are no word characters to Python's `re`
_SYMBOL = "[\u2600-\u27bf\U0001f000-\U0001faff]"  # emoji: each is a word of its own
_ASCII_WORD = re.compile("[a-z0-9]+")
_TOKEN = re.compile(rf"([{_UNSPACED}]+)|{_SYMBOL}|(?:[^\W_{_UNSPACED}]+|[{_INDIC}]+)+")

_KEPT_MARKS = (7, 8, 9)
"""Combining classes that change a letter: nukta, kana voicing, virama."""


def tokens(text: str) -> Iterator[str]:
    """Yield the terms that a query asks for, in order, repeated as often as they occur."""
    return _tokens(text, has_characters=False)


def document_tokens(text: str) -> Iterator[str]:
    """Yield the terms of a document: `tokens`, and each character of an unspaced run.

    So a query of one character finds it too.
    """
    return _tokens(text, has_characters=True)


def _tokens(text: str, *, has_characters: bool) -> Iterator[str]:
    if text.isascii():
        for word in _ASCII_WORD.findall(text.lower()):
            yield word[:MAX_WORD_LENGTH]
        return
    for match in _TOKEN.finditer(_folded(text)):
        token = match.group()
        if match.lastindex is None:
            yield token[:MAX_WORD_LENGTH]
            continue
        yield from map("".join, pairwise(token))
        if has_characters or len(token) == 1:
            yield from token


def _folded(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    kept = [c for c in decomposed if unicodedata.combining(c) in (0, *_KEPT_MARKS)]
    return unicodedata.normalize("NFC", "".join(kept).casefold())
