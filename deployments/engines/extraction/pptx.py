"""PPTX to text: slide by slide, shapes in the order of the file, tables tab-separated, notes."""

from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Any
from zipfile import BadZipFile

from lxml import etree  # type: ignore[import-untyped]
from pptx import Presentation
from pptx.exc import PythonPptxError

from deployments.engines.extraction.document import Extracted, clean
from deployments.errors import UnreadableDocument

_DAMAGE = (
    *(PythonPptxError, BadZipFile, KeyError, ValueError, TypeError, AttributeError),
    *(IndexError, NotImplementedError, RecursionError, etree.LxmlError),
)
"""What python-pptx raises on damaged files; only the first is by design."""


def extract_pptx(data: bytes) -> Extracted:
    """Return the slides' text, an empty line between shapes.

    Raises:
        UnreadableDocument: the file is damaged or holds no text.
    """
    try:
        presentation = Presentation(BytesIO(data))
        blocks = [block for slide in presentation.slides for block in _slide(slide)]
        title = presentation.core_properties.title or ""
    except _DAMAGE:
        raise UnreadableDocument("the PPTX presentation is damaged") from None
    return clean("\n\n".join(blocks), title)


def _slide(slide: Any) -> Iterator[str]:
    heading = slide.shapes.title
    for text in _shapes(slide.shapes):
        is_heading = heading is not None and text == heading.text_frame.text.strip()
        yield f"# {' '.join(text.split())}" if is_heading else text
        heading = None if is_heading else heading
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        notes = slide.notes_slide.notes_text_frame.text.strip()
        if notes:
            yield notes


def _shapes(shapes: Iterable[Any]) -> Iterator[str]:
    for shape in shapes:
        if hasattr(shape, "shapes"):
            yield from _shapes(shape.shapes)
            continue
        text = ""
        if shape.has_text_frame:
            text = shape.text_frame.text
        elif getattr(shape, "has_table", False):
            text = "\n".join("\t".join(_cells(row)) for row in shape.table.rows)
        if text.strip():
            yield text.strip()


def _cells(row: Any) -> Iterator[str]:
    """Yield each cell's text on one line; cells that a merged one covers are empty."""
    for cell in row.cells:
        yield "" if cell.is_spanned else " ".join(cell.text.split())
