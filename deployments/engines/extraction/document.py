"""What an extraction yields, and how its text is cleaned. It knows no file format."""

import re
from dataclasses import dataclass

from deployments.errors import UnreadableDocument

MAX_TEXT_CHARACTERS = 32 * 1024 * 1024
"""More text than this comes from a bomb, not from a document."""

_LINE_ENDS = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
_HARMFUL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Extracted:
    """A file's text, with line feeds as its only line ends, and its title (may be empty).

    Of a web page, the characters seen that are no main content are counted, white space left out.
    """

    text: str
    title: str = ""
    num_boilerplate_characters: int = 0


def clean(text: str, title: str = "") -> Extracted:
    """Return text and title with line ends made equal and nothing else changed but what harms.

    Control characters and lone surrogates go: databases and JSON parsers refuse them. Characters of
    any script stay as they are; in particular nothing is composed, folded or trimmed within lines.

    Raises:
        UnreadableDocument: nothing visible is left, or far too much.
    """
    text = _clean(text).removeprefix("\ufeff").strip("\n")
    if not text.strip():
        raise UnreadableDocument("the file holds no text")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise UnreadableDocument("the file holds more text than a document may have")
    return Extracted(text, " ".join(_clean(title).split()))


def _clean(text: str) -> str:
    return _HARMFUL.sub("", _LINE_ENDS.sub("\n", text))
