"""Text to index terms, the same for documents and queries.

Words are folded (case, width, accents). Scripts written without spaces become overlapping pairs
of characters, as in Lucene's CJK analyser: every two-character word is found without a dictionary.
Runs of Chinese characters alone are cut into words as well (``chinese.py``).
"""

import re
import unicodedata
from collections.abc import Iterator

from deployments.stores.chinese import document_words, pairs, query_words

MAX_WORD_LENGTH = 64
"""Longer words (keys, hashes, base64) are indexed by their beginning."""

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_UNSPACED += "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_INDIC = "\u0900-\u0963\u0966-\u0dff"  # vowel signs are no word characters to Python's `re`
_SYMBOL = "[\u2600-\u27bf\U0001f000-\U0001faff]"  # emoji: each is a word of its own
_CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+")
_ASCII_WORD = re.compile("[a-z0-9]+")
_TOKEN = re.compile(rf"([{_UNSPACED}]+)|{_SYMBOL}|(?:[^\W_{_UNSPACED}]+|[{_INDIC}]+)+")

_KEPT_MARKS = (7, 8, 9)
"""Combining classes that change a letter: nukta, kana voicing, virama."""


def tokens(text: str) -> Iterator[str]:
    """Yield the terms that a query asks for, in order, repeated as often as they occur."""
    return _tokens(text, is_query=True)


def document_tokens(text: str) -> Iterator[str]:
    """Yield the terms of a document: of an unspaced run each character and pair, Chinese words too.

    So a query finds it however the two were cut.
    """
    return _tokens(text, is_query=False)


def spans(text: str) -> Iterator[tuple[int, int, bool]]:
    """Yield start and end of each word of a folded text, or unspaced run (the last is true)."""
    return ((*match.span(), match.lastindex is not None) for match in _TOKEN.finditer(text))


def _tokens(text: str, *, is_query: bool) -> Iterator[str]:
    if text.isascii():
        for word in _ASCII_WORD.findall(text.lower()):
            yield word[:MAX_WORD_LENGTH]
        return
    for match in _TOKEN.finditer(folded(text)):
        token = match.group()
        if match.lastindex is None:
            yield token[:MAX_WORD_LENGTH]
            continue
        is_chinese = _CHINESE.fullmatch(token) is not None
        if is_query:
            yield from query_words(token) if is_chinese else _pairs_or_one(token)
            continue
        yield from pairs(token)
        yield from token
        if is_chinese:
            yield from document_words(token)


def _pairs_or_one(run: str) -> Iterator[str]:
    return pairs(run) if len(run) > 1 else iter(run)


def folded(text: str) -> str:
    """Return a text without case, width and accents."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    kept = [c for c in decomposed if unicodedata.combining(c) in (0, *_KEPT_MARKS)]
    return unicodedata.normalize("NFC", "".join(kept).casefold())
