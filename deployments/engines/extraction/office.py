"""Which of the Office formats an archive is, and its reader. It knows no format itself."""

from deployments.engines.extraction.archive import check_office_archive
from deployments.engines.extraction.document import Extracted
from deployments.errors import UnreadableDocument

_BINARY_WORKBOOK = "xl/workbook.bin"


def extract_office(data: bytes) -> Extracted:
    """Return the text of a DOCX, XLSX or PPTX file, whatever it is named.

    Raises:
        UnreadableDocument: it is none of these, damaged, a bomb, holds macros, or no text.
    """
    names = check_office_archive(data)
    if "word/document.xml" in names:
        from deployments.engines.extraction.docx import extract_docx

        return extract_docx(data)
    if "xl/workbook.xml" in names:
        from deployments.engines.extraction.xlsx import extract_xlsx

        return extract_xlsx(data)
    if "ppt/presentation.xml" in names:
        from deployments.engines.extraction.pptx import extract_pptx

        return extract_pptx(data)
    if _BINARY_WORKBOOK in names:
        raise UnreadableDocument("the file is a binary workbook; save it as XLSX")
    raise UnreadableDocument("the file is an archive, but not a DOCX, XLSX or PPTX document")
