"""Files and batches as rows, and back; times become microseconds."""

from typing import Any, cast

from sqlalchemy import Connection, Row, insert, select

from deployments.errors import NotFound
from deployments.stores import schema
from deployments.stores.ids import microseconds, new_id
from deployments.stores.tasks.rows import seconds
from deployments.types.batches import (
    BatchEndpoint,
    BatchState,
    BatchStatus,
    LineCounts,
    LineFault,
    StoredFile,
    View,
)

FILES = schema.files
BATCHES = schema.batches

FILE_PREFIX, BATCH_PREFIX = "file", "batch"
OUTPUT = "batch_output"


def unknown_file() -> NotFound:
    """Return the error for an id that no file of the caller's has."""
    return NotFound("there is no file with this id")


def unknown_batch() -> NotFound:
    """Return the error for an id that no batch of the caller's has."""
    return NotFound("there is no batch with this id")


def file_of(row: Row[Any]) -> StoredFile:
    """Return a file."""
    return StoredFile(
        id=row.id,
        tenant=row.tenant,
        purpose=row.purpose,
        filename=row.filename,
        num_bytes=row.num_bytes,
        created_at=seconds(row.created_at),
        expires_at=seconds(row.expires_at),
        view=cast("View", row.view),
        batch_id=row.batch_id,
    )


def batch_of(row: Row[Any]) -> BatchState:
    """Return a batch."""
    return BatchState(
        id=row.id,
        tenant=row.tenant,
        key_id=row.key_id,
        task_id=row.task_id,
        endpoint=cast("BatchEndpoint", row.endpoint),
        input_file_id=row.input_file_id,
        status=cast("BatchStatus", row.status),
        metadata=row.metadata,
        counts=LineCounts(row.num_lines, row.num_completed, row.num_failed),
        faults=tuple(LineFault(*each) for each in row.faults),
        created_at=seconds(row.created_at),
        expires_at=seconds(row.expires_at),
        moments={status: seconds(at) for status, at in row.moments.items()},
        output_file_id=row.output_file_id or None,
        error_file_id=row.error_file_id or None,
    )


def moved(row: Row[Any], status: BatchStatus, now: int) -> dict[str, Any]:
    """Return what changes of a batch's row when it becomes something else."""
    return {"status": status, "moments": {status: now, **row.moments}}


def fault_values(fault: LineFault) -> list[Any]:
    """Return a fault as a row keeps it."""
    return [fault.code, fault.message, fault.param, fault.line]


def held_batch(connection: Connection, id_: str) -> Row[Any] | None:
    """Return the row of a batch, held against other writers."""
    statement = select(BATCHES).where(BATCHES.c.id == id_).with_for_update()
    return connection.execute(statement).one_or_none()


def insert_file(
    connection: Connection, values: dict[str, Any], now: int, kept_s: float
) -> dict[str, Any]:
    """Insert a file's row, which gets an id; return it."""
    row = {
        "id": new_id(FILE_PREFIX),
        "is_whole": True,
        "view": "",
        "batch_id": "",
        "created_at": now,
        "expires_at": now + microseconds(kept_s) if kept_s else 0,
        **values,
    }
    connection.execute(insert(FILES).values(row))
    return row
