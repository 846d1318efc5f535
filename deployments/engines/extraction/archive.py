"""Guards against zip bombs: what an archive really holds is counted before anybody unpacks it."""

import zlib
from io import BytesIO
from zipfile import BadZipFile, ZipFile

from deployments.errors import UnreadableDocument

MAX_MEMBERS = 1000
MAX_BYTES = 200 * 1024 * 1024
MAX_RATIO = 100
"""Word files shrink 5 to 20 times; a bomb, a thousand times."""

_CHUNK = 64 * 1024


def check_office_archive(data: bytes, required: str) -> None:
    """Refuse an archive that unpacks to too much, lacks `required`, or declares XML entities.

    Sizes are counted while unpacking, since those in the headers may lie.

    Raises:
        UnreadableDocument: says what is wrong.
    """
    try:
        with ZipFile(BytesIO(data)) as archive:
            names = archive.namelist()
            if len(names) > MAX_MEMBERS:
                raise UnreadableDocument("the archive holds too many files")
            if required not in names:
                raise UnreadableDocument("the file is an archive, but not a DOCX document")
            _count(archive, names, min(MAX_BYTES, MAX_RATIO * len(data)))
    except (BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError):
        raise UnreadableDocument("the archive is damaged or encrypted") from None


def _count(archive: ZipFile, names: list[str], max_bytes: int) -> None:
    num_bytes = 0
    for name in names:
        tail = b""
        with archive.open(name) as member:
            while chunk := member.read(_CHUNK):
                num_bytes += len(chunk)
                if num_bytes > max_bytes:
                    raise UnreadableDocument("the archive unpacks to far more than a document")
                # Office files never have a DTD; the tail catches one that lies across chunks.
                if name.endswith((".xml", ".rels")) and b"<!DOCTYPE" in tail + chunk:
                    raise UnreadableDocument("the document declares XML entities")
                tail = chunk[-16:]
