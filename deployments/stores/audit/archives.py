"""What left the database: signed rows that say which file a day is in, and how its chains ended."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
from sqlalchemy import Connection, select

from deployments.stores.audit.chain import Head
from deployments.stores.audit.chains import Broken
from deployments.stores.audit.signing import Signer
from deployments.stores.audit.tables import archives
from deployments.types.audit import Wrong

FOLDER = "audit-archive"
BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Archived:
    """One day that went to a file."""

    number: int
    day: str
    file: str
    sha256: str
    num_records: int
    previous: str
    heads: tuple[Head, ...]
    body: str


@dataclass(frozen=True, slots=True)
class Anchors:
    """Where the chains in the database begin."""

    heads: tuple[Head, ...]
    num_days: int


def anchors(connection: Connection, signer: Signer) -> Anchors:
    """Return the heads that the archived chains had; raises Broken."""
    heads: dict[int, Head] = {}
    found = read(connection, signer)
    for archived in found:
        heads.update((head.writer, head) for head in archived.heads)
    return Anchors(tuple(heads.values()), len(found))


def read(connection: Connection, signer: Signer) -> list[Archived]:
    """Return all archives in order; raises Broken when one is missing or not signed by us."""
    found: list[Archived] = []
    for row in connection.execute(select(archives).order_by(archives.c.number)):
        previous = _digest(found[-1].body) if found else ""
        is_signed = signer.is_signed(row.body.encode(), row.signature)
        archived = _parsed(row.body) if is_signed else None
        if archived is None or (archived.number, archived.previous) != (len(found) + 1, previous):
            message = f"archive {len(found) + 1} is missing or not the one that was signed"
            raise Broken(Wrong("archive", message))
        found.append(archived)
    return found


def insert(
    connection: Connection,
    signer: Signer,
    *,
    day: str,
    file: str,
    sha256: str,
    num_records: int,
    heads: Sequence[Head],
) -> None:
    """Add the next archive."""
    found = read(connection, signer)
    body = orjson.dumps(
        {
            "number": len(found) + 1,
            "day": day,
            "file": file,
            "sha256": sha256,
            "num_records": num_records,
            "previous": _digest(found[-1].body) if found else "",
            "heads": [[h.writer, h.sequence, h.time_us, h.hash.hex()] for h in heads],
        }
    )
    values = {"number": len(found) + 1, "day": day, "body": body.decode()}
    connection.execute(archives.insert().values(**values, signature=signer.sign(body)))


def check_files(found: Sequence[Archived], folder: Path) -> None:
    """Raise Broken when an archive's file is not there, or not the one that was written."""
    for archived in found:
        path = folder / FOLDER / archived.file
        if not path.exists():
            raise Broken(Wrong("archive", f"the file {archived.file} is not there"))
        if file_sha256(path) != archived.sha256:
            raise Broken(Wrong("archive", f"the file {archived.file} is not what was written"))


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _parsed(body: str) -> Archived:
    values = orjson.loads(body)
    heads = tuple(Head(w, sequence, t, bytes.fromhex(h)) for w, sequence, t, h in values["heads"])
    return Archived(**{**values, "heads": heads}, body=body)


def _digest(body: str) -> str:
    return hashlib.blake2b(body.encode(), digest_size=32).hexdigest()
