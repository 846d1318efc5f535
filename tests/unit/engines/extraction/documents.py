"""Real files for the tests, made on the spot."""

import zipfile
from io import BytesIO

import docx
import openpyxl
import pptx
from pptx.util import Inches
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfgen.canvas import Canvas

CHINESE = "你好，世界。这是第二句话！"
EMOJI = "family 👨‍👩‍👧 flag 🇩🇪 wave 👋🏽"
ARABIC = "مرحبا بالعالم"
HEBREW = "שלום עולם"
COMPOSED_AND_NOT = "é e\u0301 ﬁ Å"
SAMPLES = (CHINESE, EMOJI, ARABIC, HEBREW, COMPOSED_AND_NOT)


def pdf(*pages: str, title: str = "", font: str = "Helvetica", encrypt: str | None = None) -> bytes:
    out = BytesIO()
    if font != "Helvetica":
        pdfmetrics.registerFont(UnicodeCIDFont(font))
    canvas = Canvas(out, encrypt=encrypt)
    canvas.setTitle(title)
    for page in pages:
        canvas.setFont(font, 12)
        for number, line in enumerate(page.splitlines()):
            canvas.drawString(72, 720 - 16 * number, line)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def word(*paragraphs: str, title: str = "", table: list[list[str]] | None = None) -> bytes:
    document = docx.Document()
    document.core_properties.title = title
    for paragraph in paragraphs:
        document.add_paragraph(paragraph)
    if table:
        rows = document.add_table(rows=len(table), cols=len(table[0]))
        for row, texts in zip(rows.rows, table, strict=True):
            for cell, text in zip(row.cells, texts, strict=True):
                cell.text = text
        document.add_paragraph("after the table")
    out = BytesIO()
    document.save(out)
    return out.getvalue()


def workbook(*, title: str = "", **sheets: list[list[object]]) -> bytes:
    book = openpyxl.Workbook()
    book.properties.title = title
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    out = BytesIO()
    book.save(out)
    return out.getvalue()


def slides(*texts: tuple[str, str], notes: str = "", title: str = "") -> bytes:
    """A presentation: a heading and a body per slide; a table, a group and notes on the last."""
    show = pptx.Presentation()
    show.core_properties.title = title
    for heading, body in texts:
        slide = show.slides.add_slide(show.slide_layouts[1])
        slide.shapes.title.text = heading
        slide.placeholders[1].text = body
    if notes:
        table = slide.shapes.add_table(1, 2, Inches(1), Inches(1), Inches(2), Inches(1)).table
        table.cell(0, 0).text, table.cell(0, 1).text = "left\ncell", "right"
        group = slide.shapes.add_group_shape()
        group.shapes.add_textbox(0, 0, Inches(1), Inches(1)).text_frame.text = "in a group"
        slide.notes_slide.notes_text_frame.text = notes
    out = BytesIO()
    show.save(out)
    return out.getvalue()


def archive(**members: bytes) -> bytes:
    """A ZIP archive; `__` in a name stands for a slash and `_` for a dot."""
    out = BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name.replace("__", "/").replace("_", "."), content)
    return out.getvalue()


def with_member(data: bytes, name: str, content: bytes) -> bytes:
    """A copy of an archive in which one member has other content."""
    out = BytesIO()
    with (
        zipfile.ZipFile(BytesIO(data)) as old,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for member in old.namelist():
            new.writestr(member, content if member == name else old.read(member))
        if name not in old.namelist():
            new.writestr(name, content)
    return out.getvalue()
