"""Every format: what is read, what is refused, and that no character is harmed."""

import pytest

from deployments.engines.extraction.extract import extract
from deployments.errors import UnreadableDocument

from .documents import CHINESE, SAMPLES, archive, pdf, with_member, word

ARTICLE = """<!doctype html><html><head><title>On  cats</title><script>evil()</script></head>
<body><nav>Home About</nav><article><h1>Cats</h1><p>{}</p><p>{}</p></article></body></html>"""


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_extract_text_keeps_every_character(sample: str, encoding: str) -> None:
    assert extract(sample.encode(encoding), "a.txt").text == sample


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_extract_text_reads_utf16_without_a_mark(encoding: str) -> None:
    text = "Plain words in two bytes each.\nAnd a second line."
    assert extract(text.encode(encoding), "a.txt").text == text


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Größe, Maß und Übermut: über die Straße geht es nach Köln.", "cp1252"),
        ("Съешь же ещё этих мягких французских булок, да выпей чаю.", "cp1251"),
        (CHINESE * 10, "gb18030"),
        ("これは日本語の文章です。今日はとても良い天気ですね。" * 4, "shift_jis"),
    ],
)
def test_extract_text_guesses_old_encodings(text: str, encoding: str) -> None:
    assert extract(text.encode(encoding), "a.txt").text == text


def test_extract_text_repairs_a_damaged_byte_in_utf8() -> None:
    data = (CHINESE * 20).encode()
    assert extract(data[:30] + b"\xff" + data[30:], "a.txt").text.count("\ufffd") == 1


def test_extract_text_normalises_only_what_harms() -> None:
    plain = "no harm in this line, nor in any other one " * 2
    text = extract(f"{plain}\r\nb\rc\x00\x07 d\x0be\u2028f\tg  h \n".encode(), "a.txt").text
    assert text == f"{plain}\nb\nc d\ne\nf\tg  h "


def test_extract_markdown_keeps_its_marks_and_finds_the_title() -> None:
    source = "intro\n\n# The *title* #\n\n- a\n- b <b>c</b>\n"
    extracted = extract(source.encode(), "README.md")
    assert extracted.text == source.rstrip("\n")
    assert extracted.title == "The *title*"


@pytest.mark.parametrize("data", [b"", b" \n\t ", b"\x00\x00", "\ufeff".encode()])
def test_extract_refuses_a_file_without_text(data: bytes) -> None:
    with pytest.raises(UnreadableDocument):
        extract(data, "a.txt")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "image"),
        (b"\x7fELF" + bytes(100), "program"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Office"),
        (b"{\\rtf1 hello}", "RTF"),
        (bytes(range(256)) * 8, "neither text"),
    ],
)
def test_extract_names_the_kind_it_refuses(data: bytes, what: str) -> None:
    with pytest.raises(UnreadableDocument, match=what):
        extract(data, "a.txt")


def test_extract_html_finds_the_article_and_the_title() -> None:
    page = ARTICLE.format("A cat sleeps most of the day. " * 20, CHINESE * 20)
    extracted = extract(page.encode(), "page")
    assert extracted.title == "On cats"
    assert "A cat sleeps most of the day." in extracted.text
    assert CHINESE in extracted.text
    assert "evil" not in extracted.text


@pytest.mark.parametrize("sample", SAMPLES)
def test_extract_html_falls_back_to_the_body(sample: str) -> None:
    page = f"<html><body><style>p {{}}</style><p>{sample}</p><div>two</div></body></html>"
    assert extract(page.encode(), "a.html").text.splitlines() == [sample, "two"]


def test_extract_html_reads_the_declared_encoding() -> None:
    page = '<html><head><meta charset="koi8-r"></head><body><p>Привет, мир</p></body></html>'
    assert extract(page.encode("koi8-r"), "a.html").text == "Привет, мир"


def test_extract_html_reads_a_page_with_an_xml_declaration() -> None:
    page = '<?xml version="1.0" encoding="utf-8"?><html><body><p>fine</p></body></html>'
    assert extract(page.encode(), "a.xhtml").text == "fine"


def test_extract_html_reads_deep_nesting_and_refuses_endless_one() -> None:
    def page(depth: int) -> bytes:
        return ("<html><body>" + "<div>" * depth + "deep" + "</div>" * depth).encode()

    assert extract(page(1000), "a.html").text == "deep"
    with pytest.raises(UnreadableDocument):
        extract(page(100_000), "a.html")


def test_extract_takes_a_text_about_html_for_text() -> None:
    source = "Use <b>bold</b> and <html> tags sparingly."
    assert extract(source.encode(), "notes.txt").text == source


def test_extract_pdf_reads_pages_and_title() -> None:
    extracted = extract(pdf("First page\nsecond line", "Second page", title="A title"), "a.pdf")
    assert extracted.text == "First page\nsecond line\n\nSecond page"
    assert extracted.title == "A title"


def test_extract_pdf_reads_chinese() -> None:
    assert extract(pdf(CHINESE, font="STSong-Light"), "a.pdf").text == CHINESE


def test_extract_pdf_opens_one_that_only_restricts_its_use() -> None:
    from reportlab.lib.pdfencrypt import StandardEncryption

    data = pdf("readable", encrypt=StandardEncryption("", "owner", canPrint=0))
    assert extract(data, "a.pdf").text == "readable"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (pdf("secret", encrypt="password"), "encrypted"),
        (pdf(""), "no text"),
        (pdf("text")[:400], "damaged"),
        (b"%PDF-1.7 nothing", "damaged"),
        (b"plain words", "damaged"),
    ],
)
def test_extract_pdf_says_what_is_wrong(data: bytes, what: str) -> None:
    with pytest.raises(UnreadableDocument, match=what):
        extract(data, "a.pdf")


@pytest.mark.parametrize("sample", SAMPLES)
def test_extract_docx_keeps_every_character(sample: str) -> None:
    extracted = extract(word("one", sample, title=sample), "a.docx")
    assert extracted.text == f"one\n\n{sample}"
    assert extracted.title == " ".join(sample.split())


def test_extract_docx_reads_tables_where_they_stand() -> None:
    data = word("before", table=[["a", "b"], ["c\nc", "d"]])
    assert extract(data, "x").text == "before\n\na\tb\nc c\td\n\nafter the table"


BOMB = bytes(50_000_000)
ENTITIES = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bb">]><a>&b;</a>'


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (archive(word__document_xml=b"<a/>", big=BOMB), "far more"),
        (archive(word__document_xml=b"<a/>", **{f"m{i}": b"" for i in range(1001)}), "too many"),
        (with_member(word("a"), "word/document.xml", ENTITIES), "entities"),
        (with_member(word("a"), "word/vbaProject.bin", b"macro"), "macros"),
        (with_member(word("a"), "word/document.xml", b"<not closed"), "damaged"),
        (archive(word__document_xml=b"<a/>"), "damaged"),
        (archive(readme_txt=b"hello"), "not a DOCX"),
        (word("a")[:-200], "damaged"),
        (b"no archive", "damaged"),
    ],
)
def test_extract_docx_says_what_is_wrong(data: bytes, what: str) -> None:
    with pytest.raises(UnreadableDocument, match=what):
        extract(data, "a.docx")
