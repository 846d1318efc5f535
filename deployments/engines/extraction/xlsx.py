"""XLSX to text: each sheet under its name, rows as tab-separated lines; values, not formulas."""

import datetime
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Any
from zipfile import BadZipFile

from openpyxl import load_workbook
from openpyxl.utils.exceptions import InvalidFileException

from deployments.engines.extraction.document import MAX_TEXT_CHARACTERS, Extracted, clean
from deployments.errors import UnreadableDocument

_DAMAGE = (
    *(InvalidFileException, BadZipFile, SyntaxError, KeyError, ValueError, TypeError),
    *(AttributeError, IndexError, OverflowError, RecursionError),
)
"""What openpyxl raises on damaged files; only the first is by design. Malformed XML is a
`SyntaxError` in Python's own parser and in lxml."""


def extract_xlsx(data: bytes) -> Extracted:
    """Return the cells' values as stored, read row by row.

    Raises:
        UnreadableDocument: the file is damaged or holds no text.
    """
    try:
        # Links to other files are not followed; the values of formulas are those last computed.
        workbook = load_workbook(BytesIO(data), read_only=True, data_only=True, keep_links=False)
        sheets = [_sheet(sheet.title, sheet) for sheet in workbook.worksheets]
        title = workbook.properties.title or ""
    except _DAMAGE:
        raise UnreadableDocument("the XLSX workbook is damaged") from None
    return clean("\n\n".join(filter(None, sheets)), title)


def _sheet(name: str, sheet: Any) -> str:
    sheet.reset_dimensions()  # what a file says of its size may lie
    lines: list[str] = []
    num_characters = 0
    for line in _lines(sheet.iter_rows(values_only=True)):
        lines.append(line)
        num_characters += len(line)
        if num_characters > MAX_TEXT_CHARACTERS:
            raise UnreadableDocument("the file holds more text than a document may have")
    return "\n".join([f"# {' '.join(name.split())}", *lines]) if lines else ""


def _lines(rows: Iterable[tuple[object, ...]]) -> Iterator[str]:
    for row in rows:
        if any(value is not None for value in row):
            line = "\t".join(map(_cell, row)).rstrip()
            if line:
                yield line


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "TRUE" if value else "FALSE"
        case datetime.datetime() if value.time() == datetime.time():
            return value.date().isoformat()
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat(" ") if isinstance(value, datetime.datetime) else str(value)
        case _:
            return " ".join(str(value).split())
