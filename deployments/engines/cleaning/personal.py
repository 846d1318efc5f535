"""Finds personal data in a text and puts placeholders there. Never a part of it is reported.

Every search takes linear time: it starts at a character that is rare (`@`) or bounded in length.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence

from deployments.engines.cleaning.checksums import (
    IBAN_LENGTHS,
    MAX_CARD_DIGITS,
    ascii_digits,
    is_card,
    is_cn_id,
    is_iban,
)
from deployments.engines.cleaning.options import PersonalKind, Redaction

Span = tuple[int, int]

_LOCAL_ASCII = re.compile(r"[A-Za-z0-9.!#$%&'*+_~^-]{1,64}\Z")
_LOCAL = re.compile(r"[\w.+-]{1,64}\Z")
_EMAIL_DOMAIN = re.compile(
    r"[@＠](?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}"
    r"(?:xn--[A-Za-z0-9-]{1,59}|[A-Za-z]{2,63}|[^\W\d_A-Za-z]{2,10})"
)
"""ASCII parts come first: Chinese goes on after an address without a space."""

_CN_ID = re.compile(r"(?<![0-9A-Za-z])\d{17}[\dXx](?![0-9A-Za-z])")
_US_SSN = re.compile(
    r"(?<![\w-])(?!000|666|9)\d{3}([ -])(?!00)\d{2}\1(?!0000)\d{4}(?![\w-])", re.ASCII
)
_SEPARATOR = r"[ \u00a0\u2009\u202f\u200b\u2010-\u2013.-]"
_DIGITS = re.compile(rf"\d+(?:{_SEPARATOR}\d+)*")
_GROUP = re.compile(r"\d+")
_IBAN_START = re.compile(r"(?<![0-9A-Za-z])[A-Za-z]{2}\d{2}(?=[ \u00a0-]?[0-9A-Za-z])")
_MAX_EMAIL_LOCAL = 64


def find_personal(
    text: str, kinds: Sequence[PersonalKind], phone_regions: Sequence[str]
) -> list[Redaction]:
    """Return where personal data of some kinds stands, in order; no two spans overlap.

    Where two kinds claim the same characters, the one that proves itself better has them.
    """
    finders: dict[PersonalKind, Callable[[str], Iterator[Span]]] = {
        "iban": _ibans,
        "cn_id": _cn_ids,
        "card": _cards,
        "us_ssn": _us_ssns,
        "email": _emails,
        "phone": lambda text: _phones(text, phone_regions),
    }
    found: list[Redaction] = []
    for kind, find in finders.items():
        if kind in kinds:
            found = _merged(found, [Redaction(kind, start, end) for start, end in find(text)])
    return found


def redact(text: str, found: Sequence[Redaction]) -> tuple[str, list[Redaction]]:
    """Return the text with `[KIND]` in place of what was found, and where those stand in it."""
    parts: list[str] = []
    placed: list[Redaction] = []
    position = length = 0
    for one in found:
        placeholder = f"[{one.kind.upper()}]"
        start = length + one.start - position
        parts += [text[position : one.start], placeholder]
        position, length = one.end, start + len(placeholder)
        placed.append(Redaction(one.kind, start, length))
    return "".join([*parts, text[position:]]), placed


def _merged(first: list[Redaction], second: list[Redaction]) -> list[Redaction]:
    """Return both in order, of the second only what touches nothing of the first."""
    starts = [one.start for one in first]
    merged = list(first)
    for one in second:
        following = bisect_right(starts, one.start)
        is_after = following == 0 or first[following - 1].end <= one.start
        if is_after and (following == len(first) or one.end <= starts[following]):
            merged.append(one)
    return sorted(merged, key=lambda one: one.start)


def _emails(text: str) -> Iterator[Span]:
    last = 0
    for domain in _EMAIL_DOMAIN.finditer(text):
        begin = max(last, domain.start() - _MAX_EMAIL_LOCAL)
        before = text[begin : domain.start()]
        local = _LOCAL_ASCII.search(before) or _LOCAL.search(before)
        if local is not None:
            yield begin + local.start(), domain.end()
            last = domain.end()


def _phones(text: str, regions: Sequence[str]) -> Iterator[Span]:
    from phonenumbers import Leniency, PhoneNumberMatcher

    spans: set[Span] = set()
    for region in regions or (None,):
        matcher = PhoneNumberMatcher(text, region, leniency=Leniency.VALID, max_tries=1 << 31)
        spans.update((match.start, match.end) for match in matcher)
    last = 0
    for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
        if start >= last:
            yield start, end
            last = end


def _cn_ids(text: str) -> Iterator[Span]:
    return (m.span() for m in _CN_ID.finditer(text) if is_cn_id(ascii_digits(m[0])))


def _us_ssns(text: str) -> Iterator[Span]:
    return (match.span() for match in _US_SSN.finditer(text))


def _cards(text: str) -> Iterator[Span]:
    """Yield the cards among groups of digits; one may begin and end only where a group does."""
    for run in _DIGITS.finditer(text):
        groups = [group.span() for group in _GROUP.finditer(text, *run.span())]
        first = 0
        while first < len(groups):
            last = _card_end(text, groups, first)
            if last is not None:
                yield groups[first][0], groups[last][1]
            first = first + 1 if last is None else last + 1


def _card_end(text: str, groups: list[Span], first: int) -> int | None:
    """Return the last group of the card that begins with a group, None if there is none."""
    digits = ""
    for index in range(first, len(groups)):
        start, end = groups[index]
        if len(digits) + end - start > MAX_CARD_DIGITS:
            return None
        digits += ascii_digits(text[start:end])
        if is_card(digits):
            return index
    return None


def _ibans(text: str) -> Iterator[Span]:
    for match in _IBAN_START.finditer(text):
        end = _iban_end(text, match.start())
        if end is not None:
            yield match.start(), end


def _iban_end(text: str, start: int) -> int | None:
    length = IBAN_LENGTHS.get(text[start : start + 2].upper(), 0)
    number, position = "", start
    while len(number) < length and position < len(text):
        one = text[position]
        if one.isascii() and one.isalnum():
            number += one
        elif one not in " \u00a0-" or not text[position - 1].isalnum():
            return None
        position += 1
    is_whole = position >= len(text) or not (text[position].isascii() and text[position].isalnum())
    return position if length and is_whole and is_iban(number) else None
