"""DOCX to text: paragraphs and tables in the order of the page, tables as tab-separated lines."""

from collections.abc import Iterator
from io import BytesIO
from typing import Protocol

from docx import Document
from docx.opc.exceptions import PackageNotFoundError
from docx.table import Table, _Cell
from docx.text.paragraph import Paragraph
from lxml import etree  # type: ignore[import-untyped]

from deployments.engines.extraction.document import Extracted, clean
from deployments.errors import UnreadableDocument

_DAMAGE = (
    PackageNotFoundError,
    KeyError,
    ValueError,
    AttributeError,
    RecursionError,
    etree.LxmlError,
)
"""What python-docx raises on damaged files; only the first is by design."""


class _Container(Protocol):
    def iter_inner_content(self) -> Iterator[Paragraph | Table]: ...


def extract_docx(data: bytes) -> Extracted:
    """Return the document's text, an empty line between paragraphs.

    Raises:
        UnreadableDocument: the file is damaged or holds no text.
    """
    try:
        document = Document(BytesIO(data))
        text = "\n\n".join(_blocks(document))
        title = document.core_properties.title
    except _DAMAGE:
        raise UnreadableDocument("the DOCX document is damaged") from None
    return clean(text, title)


def _blocks(container: _Container) -> Iterator[str]:
    for item in container.iter_inner_content():
        text = item.text if isinstance(item, Paragraph) else _table(item)
        if text.strip():
            yield text


def _table(table: Table) -> str:
    lines = ("\t".join(_cells(row.cells)) for row in table.rows)
    return "\n".join(line for line in lines if line.strip())


def _cells(cells: tuple[_Cell, ...]) -> Iterator[str]:
    """Yield each cell's text on one line; a merged cell comes once."""
    last = None
    for cell in cells:
        if cell._tc is not last:
            yield " ".join(" ".join(_blocks(cell)).split())
        last = cell._tc
