"""Guards against zip bombs: what an archive really holds is counted before anybody unpacks it."""

import re
import zlib
from io import BytesIO
from zipfile import BadZipFile, ZipFile

from deployments.errors import UnreadableDocument

MAX_MEMBERS = 1000
MAX_BYTES = 200 * 1024 * 1024
MAX_RATIO = 100
"""Office files shrink 5 to 20 times; a bomb, a thousand times."""

_CHUNK = 64 * 1024
_LONGEST_MARK = 32
"""Bytes of a mark in UTF-32, and some; what may lie across two chunks."""

_ENCODINGS = ("utf-8", "utf-16-le", "utf-16-be")
_ENTITY = re.compile(b"|".join(re.escape("<!ENTITY".encode(name)) for name in _ENCODINGS))
_DTD = re.compile(b"|".join(re.escape("<!DOCTYPE".encode(name)) for name in _ENCODINGS))


def check_office_archive(data: bytes) -> frozenset[str]:
    """Return the names of an archive's members, each of them unpacked once to count it.

    Sizes are counted while unpacking, since those in the headers may lie.

    Raises:
        UnreadableDocument: it is damaged, unpacks to too much, declares XML entities, or holds
            macros.
    """
    try:
        with ZipFile(BytesIO(data)) as archive:
            names = archive.namelist()
            if len(names) > MAX_MEMBERS:
                raise UnreadableDocument("the archive holds too many files")
            if any(name.lower().endswith("vbaproject.bin") for name in names):
                raise UnreadableDocument("the document holds macros; save it without")
            _count(archive, names, min(MAX_BYTES, MAX_RATIO * len(data)))
            return frozenset(names)
    except (BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError):
        raise UnreadableDocument("the archive is damaged or encrypted") from None


def _count(archive: ZipFile, names: list[str], max_bytes: int) -> None:
    num_bytes = 0
    for name in names:
        # A part of any name may be read as XML, and XML may come in UTF-16; parts of HTML may
        # have a document type, but no entities of their own.
        forbidden = _DTD if name.lower().endswith((".xml", ".rels")) else _ENTITY
        tail = b""
        with archive.open(name) as member:
            while chunk := member.read(_CHUNK):
                num_bytes += len(chunk)
                if num_bytes > max_bytes:
                    raise UnreadableDocument("the archive unpacks to far more than a document")
                if forbidden.search(tail + chunk):
                    raise UnreadableDocument("the document declares XML entities")
                tail = chunk[-_LONGEST_MARK:]
