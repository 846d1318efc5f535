"""What kind of file this is, by its bytes first and by its name only where bytes do not tell."""

import re
from pathlib import PurePosixPath
from typing import Literal

from deployments.engines.extraction.decoding import decode
from deployments.errors import UnreadableDocument

Kind = Literal["text", "html", "pdf", "office"]
"""`office` is DOCX, XLSX or PPTX: only the child opens the archive to see which."""

_HTML_START = re.compile(
    r"\s*+(<\?xml[^>]*+>\s*+)?+(?><!--.*?-->\s*)*+<(!doctype\s+html|html|head|body)\b",
    re.I | re.S,
)
"""A comment ends at its first `-->`, for good: else thirty of them take hours to be no page."""

_TAG = re.compile(r"<[a-zA-Z][^<>]*>")

_BINARY = frozenset({".pdf", ".doc", ".docx", ".docm", ".xls", ".xlsx", ".xlsm", ".xlsb"})
_BINARY |= {".ppt", ".pptx", ".pptm"}
"""Names of files that are no text; one that is, is damaged or misnamed."""

_REFUSED = {
    b"\xd0\xcf\x11\xe0": "an old or encrypted Office file; save it as DOCX, XLSX or PPTX",
    b"{\\rtf": "an RTF file; save it as DOCX",
    b"\x7fELF": "a program",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"GIF8": "an image",
    b"\x1f\x8b": "a compressed file",
    b"PK\x05\x06": "an empty archive",
}


def detect(data: bytes, filename: str) -> Kind:
    """Return the kind of a file.

    Raises:
        UnreadableDocument: it is of a kind that nothing here reads.
    """
    if b"%PDF-" in data[:1024]:
        return "pdf"
    if data.startswith(b"PK\x03\x04"):
        return "office"
    for magic, what in _REFUSED.items():
        if data.startswith(magic):
            raise UnreadableDocument(f"the file is {what}")
    suffix = PurePosixPath(filename.lower()).suffix
    if suffix in _BINARY:
        raise UnreadableDocument(f"the file is damaged: it is named {suffix} but is something else")
    start = decode(data[:4096], is_part=True)
    if _HTML_START.match(start):
        return "html"
    return "html" if suffix in (".html", ".htm", ".xhtml") and _TAG.search(start) else "text"
