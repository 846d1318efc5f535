"""Files that callers keep: written in parts, listed once they are whole, read in pieces.

What a file is for, and whether it makes sense, it does not know. A batch's output is a file, too,
whose pieces are the batch's lines.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from deployments.errors import Conflict, NotFound, PayloadTooLarge
from deployments.stores import schema
from deployments.stores.batches.rows import (
    BATCHES,
    FILES,
    file_of,
    insert_file,
    unknown_file,
)
from deployments.stores.database import Database
from deployments.stores.ids import microseconds
from deployments.types.batches import BATCH_ENDS, BatchState, FileOrder, StoredFile

PARTS = schema.file_parts
LINES = schema.batch_lines

PART_BYTES = 1024 * 1024
LINES_PAGE = 256
UPLOAD_S = 3600.0
"""A file that is not whole after so long is of an upload that died."""

SWEPT = 100
Clock = Callable[[], float]


class FileStore:
    """Files of all tenants; safe to use from many threads and processes.

    Every method raises StoreUnavailable when the database does not answer.
    """

    def __init__(self, database: Database, clock: Clock = time.time) -> None:
        self._database = database
        self._clock = clock

    def begin(self, order: FileOrder, *, max_files: int, max_bytes: int) -> str:
        """Make room for a file, and return its id; it is there once it is finished.

        Args:
            order: what comes.
            max_files: of the tenant, this one included; uploads at the same time may exceed it.
            max_bytes: of all of them together.

        Raises:
            PayloadTooLarge: the tenant has as much as it may have.
        """
        mine = select(func.count(), func.coalesce(func.sum(FILES.c.num_bytes), 0))
        with self._database.write() as connection:
            count, total = connection.execute(mine.where(FILES.c.tenant == order.tenant)).one()
            if count >= max_files:
                raise PayloadTooLarge(f"there are {max_files} files already: delete some")
            if int(total) + order.num_bytes > max_bytes:
                raise PayloadTooLarge(f"all files together exceed {max_bytes} bytes: delete some")
            values = {
                "tenant": order.tenant,
                "purpose": order.purpose,
                "filename": order.filename,
                "num_bytes": order.num_bytes,
                "is_whole": False,
            }
            row = insert_file(connection, values, microseconds(self._clock()), order.kept_s)
        return str(row["id"])

    def add(self, id_: str, number: int, data: bytes) -> None:
        """Write a part, of `PART_BYTES` at most; numbers grow."""
        with self._database.write() as connection:
            connection.execute(insert(PARTS).values(file_id=id_, number=number, data=data))

    def finish(self, id_: str) -> StoredFile:
        """Have a file be there."""
        with self._database.write() as connection:
            mine = FILES.c.id == id_
            connection.execute(update(FILES).where(mine).values(is_whole=True))
            return file_of(connection.execute(select(FILES).where(mine)).one())

    def discard(self, id_: str) -> None:
        """Remove a file that did not come whole."""
        with self._database.write() as connection:
            _remove(connection, [id_])

    def get(self, tenant: str, id_: str) -> StoredFile:
        """Return a file of a tenant's; raises NotFound."""
        with self._database.read() as connection:
            return file_of(self._require(connection, tenant, id_))

    def find(
        self, tenant: str, *, limit: int, after: str, is_ascending: bool, purpose: str
    ) -> list[StoredFile]:
        """Return files by age, those beyond `after`; all purposes where none is given."""
        statement = select(FILES).where(FILES.c.tenant == tenant, self._is_there())
        if purpose:
            statement = statement.where(FILES.c.purpose == purpose)
        if after:
            statement = statement.where(FILES.c.id > after if is_ascending else FILES.c.id < after)
        order = FILES.c.id if is_ascending else FILES.c.id.desc()
        with self._database.read() as connection:
            found = connection.execute(statement.order_by(order).limit(limit))
            return [file_of(row) for row in found]

    def delete(self, tenant: str, id_: str) -> None:
        """Remove a file; of a batch's output also what it consists of.

        Raises:
            NotFound: the tenant has no such file.
            Conflict: a batch that has not ended reads it.
        """
        with self._database.write() as connection:
            row = self._require(connection, tenant, id_, is_held=True)
            reading = select(BATCHES.c.id).where(
                BATCHES.c.input_file_id == id_, BATCHES.c.status.not_in(BATCH_ENDS)
            )
            if connection.execute(reading.limit(1)).first() is not None:
                raise Conflict("a batch that has not ended reads this file: cancel it first")
            _remove_rows(connection, [row])

    def input_of(self, batch: BatchState) -> StoredFile:
        """Return what a batch reads, though it may have expired; raises NotFound."""
        with self._database.read() as connection:
            mine = select(FILES).where(FILES.c.id == batch.input_file_id)
            row = connection.execute(mine).one_or_none()
        if row is None:
            raise unknown_file()
        return file_of(row)

    def pieces(self, file: StoredFile) -> Iterator[bytes]:
        """Yield a file's bytes in order, each piece read when it is asked for.

        Raises:
            NotFound: it was deleted meanwhile.
        """
        return self._lines(file) if file.view else self._parts(file)

    def sweep(self) -> int:
        """Remove files that have expired, or were never whole; return how many, up to a page."""
        now = microseconds(self._clock())
        expired = and_(FILES.c.expires_at > 0, FILES.c.expires_at <= now)
        broken = and_(
            FILES.c.is_whole.is_(False), FILES.c.created_at < now - microseconds(UPLOAD_S)
        )
        in_use = select(BATCHES.c.input_file_id).where(BATCHES.c.status.not_in(BATCH_ENDS))
        doomed = select(FILES).where(or_(expired, broken), FILES.c.id.not_in(in_use)).limit(SWEPT)
        with self._database.write() as connection:
            rows = connection.execute(doomed).all()
            _remove_rows(connection, rows)
        return len(rows)

    def _is_there(self) -> ColumnElement[bool]:
        now = microseconds(self._clock())
        return and_(FILES.c.is_whole, or_(FILES.c.expires_at == 0, FILES.c.expires_at > now))

    def _require(
        self, connection: Connection, tenant: str, id_: str, *, is_held: bool = False
    ) -> Row[Any]:
        statement = select(FILES).where(
            FILES.c.id == id_, FILES.c.tenant == tenant, self._is_there()
        )
        if is_held:
            statement = statement.with_for_update()
        row = connection.execute(statement).one_or_none()
        if row is None:
            raise unknown_file()
        return row

    def _parts(self, file: StoredFile) -> Iterator[bytes]:
        num_read = number = 0
        while num_read < file.num_bytes:
            mine = select(PARTS.c.data).where(PARTS.c.file_id == file.id, PARTS.c.number == number)
            with self._database.read() as connection:
                data = connection.scalars(mine).one_or_none()
            if data is None:
                raise NotFound("the file was deleted")
            number, num_read = number + 1, num_read + len(data)
            yield bytes(data)

    def _lines(self, file: StoredFile) -> Iterator[bytes]:
        last = 0
        known = select(FILES.c.id).where(FILES.c.id == file.id)
        while True:
            page = (
                select(LINES.c.line, LINES.c.data)
                .where(
                    LINES.c.batch_id == file.batch_id,
                    LINES.c.line > last,
                    LINES.c.is_failed.is_(file.view == "errors"),
                )
                .order_by(LINES.c.line)
                .limit(LINES_PAGE)
            )
            with self._database.read() as connection:
                if connection.execute(known).one_or_none() is None:
                    raise NotFound("the file was deleted")
                rows = connection.execute(page).all()
            if not rows:
                return
            last = rows[-1].line
            yield b"".join(bytes(row.data or b"") for row in rows)


def _remove_rows(connection: Connection, rows: Sequence[Row[Any]]) -> None:
    for row in rows:
        if row.view:
            of_view = (
                LINES.c.batch_id == row.batch_id,
                LINES.c.is_failed.is_(row.view == "errors"),
            )
            connection.execute(delete(LINES).where(*of_view))
    _remove(connection, [row.id for row in rows])


def _remove(connection: Connection, ids: Sequence[str]) -> None:
    connection.execute(delete(PARTS).where(PARTS.c.file_id.in_(ids)))
    connection.execute(delete(FILES).where(FILES.c.id.in_(ids)))
