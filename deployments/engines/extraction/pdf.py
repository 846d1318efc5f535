"""PDF to text, page by page. Scanned pages hold no text; nothing here recognises letters."""

from io import BytesIO

from pypdf import PasswordType, PdfReader
from pypdf.errors import DependencyError, PyPdfError

from deployments.engines.extraction.document import Extracted, clean
from deployments.errors import UnreadableDocument

_DAMAGE = (PyPdfError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)
"""What pypdf raises on damaged files; only the first is by design."""


def extract_pdf(data: bytes) -> Extracted:
    """Return the pages' text, an empty line between them.

    Raises:
        UnreadableDocument: the file is damaged or encrypted, or holds no text.
    """
    try:
        reader = PdfReader(BytesIO(data), strict=False)
        _unlock(reader)
        pages = [page.extract_text().strip() for page in reader.pages]
        title = str((reader.metadata and reader.metadata.title) or "")
    except _DAMAGE:
        raise UnreadableDocument("the PDF is damaged") from None
    text = "\n\n".join(page for page in pages if page)
    if not text.strip():
        raise UnreadableDocument("the PDF holds no text; it may be a scan")
    return clean(text, title)


def _unlock(reader: PdfReader) -> None:
    """Open a PDF that only restricts its use: its password is empty."""
    if not reader.is_encrypted:
        return
    try:
        is_open = reader.decrypt("") != PasswordType.NOT_DECRYPTED
    except DependencyError:
        is_open = False
    if not is_open:
        raise UnreadableDocument("the PDF is encrypted; remove its password")
