"""Checkpoints: every minute, all heads that have moved, signed, in the database and in a file.

A checkpoint names the one before it by its hash. The file beside the database is only ever appended
to; keep a copy of it elsewhere, and nobody can take back what it says.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection, func, select

from deployments.errors import Conflict
from deployments.stores.audit.signing import Signer
from deployments.stores.audit.tables import checkpoints, writers
from deployments.stores.database import Database
from deployments.stores.sql_errors import files_translated

FILE = "audit.checkpoints"
PERIOD_US = 60_000_000
READ_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The heads at one moment: for each writer that has moved, its sequence and hash."""

    number: int
    time_us: int
    heads: dict[int, tuple[int, bytes]]
    previous: str
    body: str
    signature: bytes

    @property
    def line(self) -> bytes:
        """Return the line of the file."""
        return orjson.dumps({"body": self.body, "signature": self.signature.hex()}) + b"\n"


def make_checkpoint(
    database: Database, signer: Signer, now_us: int, *, period_us: int = PERIOD_US
) -> bool:
    """Sign the heads when the last time is a while ago and one has moved; return whether it was.

    Raises:
        StoreUnavailable: the database did not answer; safe to retry.
    """
    try:
        with database.write() as connection:
            last = _last(connection)
            if last is not None and 0 <= now_us - last.time_us < period_us:
                return False
            moved = _moved(connection)
            if not moved:
                return False
            _insert(connection, signer, last, moved, now_us)
    except Conflict:  # another process was faster
        return False
    return True


def _insert(
    connection: Connection,
    signer: Signer,
    last: Checkpoint | None,
    heads: dict[str, list[Any]],
    now_us: int,
) -> None:
    body = orjson.dumps(
        {
            "number": 1 if last is None else last.number + 1,
            "time_us": now_us,
            "previous": "" if last is None else digest(last.body),
            "heads": heads,
        }
    )
    made = parse(body.decode(), signer.sign(body))
    connection.execute(
        checkpoints.insert().values(
            number=made.number, time_us=now_us, body=made.body, signature=made.signature
        )
    )
    for writer, (sequence, _) in made.heads.items():
        where = writers.c.id == writer
        connection.execute(writers.update().where(where).values(checked=sequence))


def _moved(connection: Connection) -> dict[str, list[Any]]:
    wanted = select(writers).where(writers.c.sequence > writers.c.checked).order_by(writers.c.id)
    rows = connection.execute(wanted)
    return {str(row.id): [row.sequence, row.hash.hex()] for row in rows}


def append_to_file(database: Database, folder: Path) -> int:
    """Bring the file up to the database; return how many lines it lacked.

    Raises:
        StoreUnavailable: the file cannot be written, or the database did not answer.
    """
    path, added = folder / FILE, 0
    with files_translated():
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "rb+") as file:
            last = _end_of(file.fileno())
            for checkpoint in stored(database, after=last):
                os.write(file.fileno(), checkpoint.line)
                added += 1
            if added:
                os.fsync(file.fileno())
    return added


def _end_of(descriptor: int) -> int:
    """Return the number of the file's last whole line, and end a torn one."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # released when the file is closed
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, 1 << 20, max(0, size - (1 << 20)))
    if tail and not tail.endswith(b"\n"):
        os.write(descriptor, b"\n")
    for line in reversed(tail.splitlines()):
        found = parse_line(line)
        if found is not None:
            return found.number
    return 0


def in_file(folder: Path) -> Iterator[Checkpoint]:
    """Yield the checkpoints of the file, without lines that were torn."""
    path = folder / FILE
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            found = parse_line(line)
            if found is not None:
                yield found


def stored(database: Database, *, after: int = 0) -> Iterator[Checkpoint]:
    """Yield the checkpoints of the database, in order."""
    table = checkpoints
    while True:
        wanted = select(table).where(table.c.number > after).order_by(table.c.number)
        with database.read() as connection:
            rows = connection.execute(wanted.limit(READ_ROWS)).all()
        for row in rows:
            yield parse(row.body, row.signature)
        if len(rows) < READ_ROWS:
            return
        after = rows[-1].number


def _last(connection: Connection) -> Checkpoint | None:
    number = select(func.max(checkpoints.c.number)).scalar_subquery()
    row = connection.execute(select(checkpoints).where(checkpoints.c.number == number)).first()
    return None if row is None else parse(row.body, row.signature)


def parse(body: str, signature: bytes) -> Checkpoint:
    """Return a checkpoint; raises ValueError when it is none."""
    try:
        values = orjson.loads(body)
        heads = {
            int(writer): (int(sequence), bytes.fromhex(head))
            for writer, (sequence, head) in values["heads"].items()
        }
        number, time_us, previous = values["number"], values["time_us"], values["previous"]
        return Checkpoint(int(number), int(time_us), heads, str(previous), body, bytes(signature))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("no checkpoint") from error


def parse_line(line: bytes) -> Checkpoint | None:
    """Return the checkpoint of a line; None when it was torn."""
    try:
        values = orjson.loads(line)
        return parse(values["body"], bytes.fromhex(values["signature"]))
    except (ValueError, KeyError, TypeError):
        return None


def digest(body: str) -> str:
    """Return by which hash a checkpoint names the one before it."""
    return hashlib.blake2b(body.encode(), digest_size=32).hexdigest()
