"""XLSX and PPTX: what is read, what is refused, in the child where a stranger's files are read."""

import datetime

import pytest

from deployments.engines.extraction.child import extract_in_child
from deployments.engines.extraction.extract import extract
from deployments.errors import UnreadableDocument

from .documents import SAMPLES, archive, slides, with_member, word, workbook

SHEET = "xl/worksheets/sheet1.xml"
SLIDE = "ppt/slides/slide1.xml"
ENTITIES = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bb">]><a>&b;</a>'
BOMB = bytes(50_000_000)
BOOK = workbook(Prices=[["item", "price"], ["bread", 2.5]])
SHOW = slides(("Heading", "body"))


@pytest.mark.parametrize("sample", SAMPLES)
def test_extract_xlsx_keeps_every_character(sample: str) -> None:
    extracted = extract(workbook(Names=[["one", sample]], title="t"), "a.xlsx")
    assert (extracted.text, extracted.title) == (f"# Names\none\t{sample}", "t")


def test_extract_xlsx_writes_values_as_a_reader_sees_them() -> None:
    day, minute = datetime.date(2026, 2, 3), datetime.datetime(2026, 2, 3, 4, 5)  # noqa: DTZ001
    data = workbook(
        A=[["n", 3, 2.5, True], [], ["d", day, minute, None], ["two\nlines", None, "=1+1"]],
        Empty=[],
        B=[["next"]],
    )
    assert extract(data, "a.xlsx").text == (
        "# A\nn\t3\t2.5\tTRUE\nd\t2026-02-03\t2026-02-03 04:05:00\ntwo lines\n\n# B\nnext"
    )


def test_extract_xlsx_believes_no_size_that_a_sheet_claims() -> None:
    claimed = (
        '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
        '<dimension ref="A1:XFD1048576"/><sheetData><row r="1"><c r="A1" t="inlineStr"><is>'
        "<t>here</t></is></c></row></sheetData></worksheet>"
    )
    data = with_member(BOOK, SHEET, claimed.encode())
    assert extract(data, "a.xlsx").text == "# Prices\nhere"


@pytest.mark.parametrize("sample", SAMPLES)
def test_extract_pptx_keeps_every_character(sample: str) -> None:
    extracted = extract(slides(("Heading", sample), title="t"), "a.pptx")
    assert (extracted.text, extracted.title) == (f"# Heading\n\n{sample}", "t")


def test_extract_pptx_reads_tables_groups_and_notes() -> None:
    data = slides(("First", "one"), ("Second", "two"), notes="say this")
    assert extract(data, "a.pptx").text.split("\n\n") == [
        *("# First", "one", "# Second", "two", "left cell\tright", "in a group", "say this")
    ]


@pytest.mark.parametrize("data", [BOOK, SHOW, word("words")])
def test_extract_office_goes_by_content_not_by_name(data: bytes) -> None:
    assert extract(data, "a.docx") == extract(data, "a.xlsx") == extract(data, "a.bin")


BROKEN = [
    (with_member(BOOK, SHEET, ENTITIES.encode()), "entities"),
    (with_member(BOOK, SHEET, ENTITIES.encode("utf-16")), "entities"),
    (with_member(BOOK, "xl/more.part", ENTITIES.encode()), "entities"),
    (with_member(BOOK, SHEET, b"<not closed"), "damaged"),
    (with_member(BOOK, "xl/workbook.xml", b"<a/>"), "no text"),
    (with_member(BOOK, "xl/bomb.xml", BOMB), "far more"),
    (with_member(BOOK, "xl/vbaProject.bin", b"macro"), "macros"),
    (BOOK[:-200], "damaged"),
    (workbook(Empty=[]), "no text"),
    (archive(xl__workbook_bin=b"x"), "binary workbook"),
    (archive(xl__workbook_xml=b"<a/>"), "damaged"),
    (with_member(SHOW, SLIDE, ENTITIES.encode()), "entities"),
    (with_member(SHOW, SLIDE, ENTITIES.encode("utf-16-be")), "entities"),
    (with_member(SHOW, SLIDE, b"<not closed"), "damaged"),
    (with_member(SHOW, "ppt/presentation.xml", b"<a/>"), "damaged"),
    (with_member(SHOW, "ppt/media/bomb.png", BOMB), "far more"),
    (with_member(SHOW, "ppt/vbaProject.bin", b"macro"), "macros"),
    (SHOW[: len(SHOW) // 2], "damaged"),
    (archive(ppt__presentation_xml=b"<a/>"), "damaged"),
    (archive(content_xml=b"<a/>"), "not a DOCX"),
    (archive(**{f"m{i}": b"" for i in range(1001)}), "too many"),
    (archive(), "empty archive"),
]


@pytest.mark.parametrize(("data", "what"), BROKEN)
def test_a6_b6_extract_office_says_what_is_wrong(data: bytes, what: str) -> None:
    with pytest.raises(UnreadableDocument, match=what):
        extract(data, "a.xlsx")


@pytest.mark.parametrize("name", ["a.xlsx", "a.pptx", "a.xlsm", "a.xls", "a.ppt", "a.doc"])
def test_extract_refuses_text_under_an_office_name(name: str) -> None:
    with pytest.raises(UnreadableDocument, match="damaged"):
        extract(b"plain words", name)


async def test_child_ends_a_sheet_that_never_ends() -> None:
    """Its one row says that it is the last of 10^15; the rows before it cost processor time."""
    endless = (
        '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
        '<sheetData><row r="1000000000000000"><c r="A1000000000000000"><v>1</v></c></row>'
        "</sheetData></worksheet>"
    )
    data = with_member(BOOK, SHEET, endless.encode())
    with pytest.raises(UnreadableDocument):
        await extract_in_child(data, "a.xlsx", timeout_s=2)


async def test_child_reads_office_files_within_its_limits() -> None:
    assert (await extract_in_child(BOOK, "a.xlsx")).text == "# Prices\nitem\tprice\nbread\t2.5"
    assert (await extract_in_child(SHOW, "a.pptx")).text == "# Heading\n\nbody"
