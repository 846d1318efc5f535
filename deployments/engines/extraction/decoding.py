"""Bytes to characters: byte order mark, UTF-8, declared encoding, then a statistical guess."""

import codecs
import re

from deployments.errors import UnreadableDocument

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: its mark starts with the same two bytes
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED = re.compile(
    rb"""<(?:meta|\?xml)[^>]*?(?:charset|encoding)\s*=\s*["']?([\w.:-]+)""", re.I
)
_CONTROL = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_NO_TEXT = "the file is neither text nor a known kind of document"
_MAX_CONTROL_SHARE = 0.05
_SAMPLE = 64 * 1024


def decode(data: bytes, *, is_part: bool = False) -> str:
    """Return the characters of a text file.

    Args:
        data: the file, or its beginning.
        is_part: a character cut at the end is no damage.

    Raises:
        UnreadableDocument: the bytes are no text in any encoding known here.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            # With a mark the encoding is certain; damaged characters become U+FFFD.
            return data.decode(encoding, "replace").removeprefix("\ufeff")
    text = _decode_utf8(data, is_part)
    if text is None:
        text = data.decode(_declared(data) or _guess(data[:_SAMPLE]), "replace")
    if len(_CONTROL.findall(text)) > _MAX_CONTROL_SHARE * len(text):
        raise UnreadableDocument(_NO_TEXT)
    return text


def _decode_utf8(data: bytes, is_part: bool) -> str | None:
    """Return UTF-8 text, a little damage repaired with U+FFFD; None if it is not UTF-8."""
    if b"\x00" in data[:_SAMPLE] and _is_utf16(data[:_SAMPLE]):
        return None
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(data, final=not is_part)
    num_bad = text.count("\ufffd") - data.count(b"\xef\xbf\xbd")
    num_good = sum(not character.isascii() for character in text) - num_bad if num_bad else 0
    return text if num_good >= 10 * num_bad else None


def _is_utf16(sample: bytes) -> bool:
    halves = sample[::2].count(0), sample[1::2].count(0)
    return max(halves) > 0.3 * (len(sample) / 2) > 10 * min(halves)


def _declared(data: bytes) -> str | None:
    match = _DECLARED.search(data[:4096])
    try:
        return codecs.lookup(match[1].decode("ascii")).name if match else None
    except LookupError:
        return None


def _guess(sample: bytes) -> str:
    if b"\x00" in sample and _is_utf16(sample):
        return "utf-16-le" if sample[1::2].count(0) > sample[::2].count(0) else "utf-16-be"
    from charset_normalizer import from_bytes

    best = from_bytes(sample).best()
    if best is None:
        raise UnreadableDocument(_NO_TEXT)
    return best.encoding
