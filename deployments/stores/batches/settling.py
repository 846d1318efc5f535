"""How a batch ends, whoever sees to it: its job, or anybody who sees that its task has ended.

The end is decided once and written down as the `verdict`; from then on no line is taken any more,
and what is left to do may be done again, by many at once, and after a crash at any instant: lines
that were not done get their error, the files are made, and the batch is what was decided.
"""

from typing import Any, Final

import orjson
from sqlalchemy import Connection, Row, bindparam, func, select, update

from deployments.stores import schema
from deployments.stores.batches.rows import BATCHES, OUTPUT, fault_values, insert_file, moved
from deployments.stores.database import Database
from deployments.stores.ids import microseconds, new_id
from deployments.types.batches import BATCH_ENDS, BatchEnd, LineFault
from deployments.types.tasks import ENDED

LINES = schema.batch_lines
TASKS = schema.tasks

PAGE = 1000
GRACE_S = 30.0
"""After its time a batch ends even if nobody ends its task: there may be no worker at all."""

WITH_TASK = select(
    BATCHES, TASKS.c.status.label("task_status"), TASKS.c.error.label("task_error")
).outerjoin(TASKS, TASKS.c.id == BATCHES.c.task_id)

UNDONE: Final[dict[str, tuple[str, str]]] = {
    "expired": (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
    "cancelled": ("batch_cancelled", "This request was not executed: the batch was cancelled."),
    "failed": ("batch_failed", "This request was not executed: the batch failed."),
    "completed": ("batch_failed", "This request was not executed."),
}
"""What is said of requests that were not done."""


def verdict_of(row: Row[Any], now: int) -> BatchEnd | None:
    """Return what becomes of a batch, a row of `WITH_TASK`, if that can be told by now."""
    if row.status in BATCH_ENDS:
        return None
    if row.verdict:
        decided: BatchEnd = row.verdict
        return decided
    has_ended = row.task_status is None or row.task_status in ENDED
    if not has_ended and now < row.expires_at + microseconds(GRACE_S):
        return None
    if row.status == "cancelling":
        return "cancelled"
    if row.expires_at <= now or _code(row) == "deadline_exceeded":
        return "expired"
    return "cancelled" if row.task_status == "CANCELLED" else "failed"


def decide(connection: Connection, row: Row[Any], verdict: BatchEnd, now: int) -> None:
    """Write down how a batch ends, of a row that is held and has no verdict."""
    values: dict[str, Any] = {**moved(row, "finalizing", now), "verdict": verdict}
    if verdict == "failed" and not row.faults:
        error = getattr(row, "task_error", None) or {}
        message = error.get("message") or "the batch's task is gone"
        fault = LineFault(error.get("code") or "internal_error", message, error.get("param"))
        values["faults"] = [fault_values(fault)]
    connection.execute(update(BATCHES).where(BATCHES.c.id == row.id).values(values))


def complete(database: Database, id_: str, now: int) -> None:
    """Bring a batch that has a verdict to its end."""
    with database.read() as connection:
        found = connection.execute(select(BATCHES).where(BATCHES.c.id == id_)).one()
    if not found.verdict or found.status in BATCH_ENDS:
        return
    while _fill(database, id_, found.verdict):
        pass
    with database.write() as connection:
        held = select(BATCHES).where(BATCHES.c.id == id_).with_for_update()
        row = connection.execute(held).one_or_none()
        if row is None or row.status in BATCH_ENDS:
            return
        values = {
            **moved(row, row.verdict, now),
            "output_file_id": _make_file(connection, row, "output", now),
            "error_file_id": _make_file(connection, row, "errors", now),
        }
        connection.execute(update(BATCHES).where(BATCHES.c.id == id_).values(values))


def size_of(connection: Connection, batch_id: str, view: str) -> int:
    """Return how many bytes the lines of a view have."""
    total = select(func.coalesce(func.sum(LINES.c.num_bytes), 0)).where(
        LINES.c.batch_id == batch_id, LINES.c.is_failed.is_(view == "errors")
    )
    return int(connection.scalars(total).one())


def error_line(custom_id: str, code: str, message: str) -> bytes:
    """Return the line of a request that was not made."""
    line = {
        "id": new_id("batch_req"),
        "custom_id": custom_id,
        "response": None,
        "error": {"code": code, "message": message},
    }
    return orjson.dumps(line) + b"\n"


def _fill(database: Database, id_: str, verdict: str) -> bool:
    """Give lines that were not done their error, up to a page; False: there are none."""
    undone = select(LINES.c.line, LINES.c.custom_id).where(
        LINES.c.batch_id == id_, LINES.c.data.is_(None)
    )
    fill = (
        update(LINES)
        .where(LINES.c.batch_id == id_, LINES.c.line == bindparam("of"), LINES.c.data.is_(None))
        .values(data=bindparam("said"), num_bytes=bindparam("size"), is_failed=True)
    )
    with database.write() as connection:
        rows = connection.execute(undone.order_by(LINES.c.line).limit(PAGE)).all()
        said = [error_line(row.custom_id, *UNDONE[verdict]) for row in rows]
        values = [
            {"of": row.line, "said": data, "size": len(data)}
            for row, data in zip(rows, said, strict=True)
        ]
        if values:
            connection.execute(fill, values)
    return len(rows) == PAGE


def _make_file(connection: Connection, row: Row[Any], view: str, now: int) -> str:
    """Make the file of a view, unless it would be empty; return its id."""
    num_bytes = size_of(connection, row.id, view)
    if not num_bytes:
        return ""
    name = "output" if view == "output" else "error"
    values = {
        "tenant": row.tenant,
        "purpose": OUTPUT,
        "filename": f"{row.id}_{name}.jsonl",
        "num_bytes": num_bytes,
        "view": view,
        "batch_id": row.id,
    }
    return str(insert_file(connection, values, now, row.output_kept_us / 1_000_000)["id"])


def _code(row: Row[Any]) -> str | None:
    return (row.task_error or {}).get("code")
