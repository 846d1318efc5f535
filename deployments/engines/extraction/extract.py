"""One file to text, in this process. Files of strangers belong into a child: see ``child.py``."""

import re
from pathlib import PurePosixPath

from deployments.engines.extraction.decoding import decode
from deployments.engines.extraction.detection import Kind, detect
from deployments.engines.extraction.document import Extracted, clean

_MARKDOWN_TITLE = re.compile(r"^#[^\S\n]+(\S.*)", re.MULTILINE)
"""With the closing marks, which are cut off later: no pattern finds them in linear time."""


def extract(data: bytes, filename: str) -> Extracted:
    """Return a file's text and title.

    Args:
        data: the whole file.
        filename: its name; the extension decides only where the content does not.

    Raises:
        UnreadableDocument: the message says what is wrong with the file.
    """
    kind = detect(data, filename)
    return extract_text(data, filename) if kind == "text" else extract_kind(data, kind)


def extract_text(data: bytes, filename: str) -> Extracted:
    """Return a text or Markdown file as it is; a Markdown heading becomes the title."""
    text = decode(data)
    is_markdown = PurePosixPath(filename.lower()).suffix in (".md", ".markdown")
    heading = _MARKDOWN_TITLE.search(text) if is_markdown else None
    return clean(text, heading[1].rstrip(" #\t\r") if heading else "")


def extract_kind(data: bytes, kind: Kind) -> Extracted:
    """Return the text of a file whose kind is known; its reader is imported only here."""
    match kind:
        case "html":
            from deployments.engines.extraction.html import extract_html

            return extract_html(decode(data))
        case "pdf":
            from deployments.engines.extraction.pdf import extract_pdf

            return extract_pdf(data)
        case "office":
            from deployments.engines.extraction.office import extract_office

            return extract_office(data)
        case "text":
            return clean(decode(data))
