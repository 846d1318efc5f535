"""Fine-tunings as rows: what was asked for, how far it is, and what came of it.

A change that others must see, or that depends on what else there is, first raises a revision; so
such changes come one after the other, and a reader sees by one number whether anything is new. It
does not know what trains (``graphs/tuning.py``).
"""

import dataclasses
import time
from typing import Any, cast

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from deployments.errors import Conflict, NotFound, RateLimited
from deployments.stores import schema
from deployments.stores.database import Database
from deployments.stores.ids import microseconds, new_id
from deployments.types import (
    UNDER_WAY,
    TuningPhase,
    TuningProgress,
    TuningSpec,
    TuningState,
)

TUNINGS = 2
"""The id of our row of `registry_changes`."""

FULL_RETRY_S = 60
REVISION = select(schema.registry_changes.c.revision).where(
    schema.registry_changes.c.id == bindparam("id")
)


class TuningStore:
    """Tunings; safe to use from many threads and processes.

    Every method raises StoreUnavailable when the database does not answer; all but `add` are safe
    to repeat.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def revision(self) -> int:
        """Return the number of changes so far; progress is none."""
        rows = self._database.rows(REVISION, {"id": TUNINGS})
        return int(rows[0][0]) if rows else 0

    def add(self, spec: TuningSpec, id_: str, max_under_way: int) -> TuningState:
        """Put a tuning into the queue.

        Args:
            spec: what to train.
            id_: of `new_tuning_id`.
            max_under_way: how many may be queued or run, this one included.

        Raises:
            RateLimited: the queue is full.
            Conflict: another tuning makes, or has made, a version of this id.
        """
        table = schema.tunings
        state = TuningState(id=id_, spec=spec, phase="queued", created_at=time.time())
        with self._database.write() as connection:
            _change(connection)
            same = (table.c.name == spec.name, table.c.version == spec.version)
            made = select(table.c.id).where(*same, table.c.phase.in_((*UNDER_WAY, "completed")))
            if connection.execute(made).first() is not None:
                raise Conflict(f"a tuning makes {spec.id} already: choose another version")
            others = select(func.count()).select_from(table).where(table.c.phase.in_(UNDER_WAY))
            if connection.scalars(others).one() >= max_under_way:
                error = RateLimited("the queue of tunings is full; try again when one has ended")
                error.retry_after_s = FULL_RETRY_S
                raise error
            connection.execute(insert(table).values(_values_of(state)))
        return self.get(id_)

    def get(self, id_: str) -> TuningState:
        """Return a tuning; raises NotFound."""
        with self._database.read() as connection:
            return _require(connection, id_)

    def find(self, limit: int, before: str = "") -> list[TuningState]:
        """Return tunings, the newest first; of those, the ones older than `before`."""
        table = schema.tunings
        statement = select(table).order_by(table.c.id.desc()).limit(limit)
        if before:
            statement = statement.where(table.c.id < before)
        with self._database.read() as connection:
            return [_state_of(row) for row in connection.execute(statement)]

    def under_way(self) -> list[TuningState]:
        """Return the tunings that have something left to do: the oldest first."""
        table = schema.tunings
        statement = select(table).where(table.c.phase.in_(UNDER_WAY)).order_by(table.c.id)
        with self._database.read() as connection:
            return [_state_of(row) for row in connection.execute(statement)]

    def begin(self, state: TuningState) -> TuningState | None:
        """Note that workers are started, for the first time or again; None: it has changed."""
        now = microseconds(time.time())
        values: dict[str, Any] = {"phase": "running", "attempt": state.attempt + 1}
        if state.started_at is None:
            values["started_at"] = now
        return self.get(state.id) if self._advance(state, values) else None

    def end(self, state: TuningState, phase: TuningPhase, error: str = "") -> bool:
        """Note what became of a tuning, unless it is no longer where `state` says."""
        now = microseconds(time.time())
        return self._advance(state, {"phase": phase, "error": error, "completed_at": now})

    def cancel(self, id_: str) -> TuningState:
        """Have a tuning end; one that has ended stays as it is. Raises NotFound."""
        state = self.get(id_)
        if state.phase == "queued":
            self.end(state, "cancelled")
        elif state.phase == "running":
            self._advance(state, {"phase": "cancelling"})
        changed = self.get(id_)
        if changed.phase in ("queued", "running"):  # it began, or began anew, in this moment
            return self.cancel(id_)
        return changed

    def delete(self, id_: str) -> None:
        """Forget a tuning that has ended; a result that it made is for the caller to remove.

        Raises:
            NotFound: there is none with this id.
            Conflict: it has not ended.
        """
        table = schema.tunings
        with self._database.write() as connection:
            _change(connection)
            state = _require(connection, id_)
            if state.phase in UNDER_WAY:
                raise Conflict("the tuning has not ended: cancel it first")
            connection.execute(delete(table).where(table.c.id == id_))

    def note(self, state: TuningState, progress: TuningProgress) -> bool:
        """Write down how far an attempt is; False: it is not the one that runs."""
        with self._database.write() as connection:
            statement = update(schema.tunings).where(*_is(state))
            values = {"progress": progress.values()}
            return bool(connection.execute(statement.values(values)).rowcount)

    def _advance(self, state: TuningState, values: dict[str, Any]) -> bool:
        with self._database.write() as connection:
            _change(connection)
            statement = update(schema.tunings).where(*_is(state))
            return bool(connection.execute(statement.values(values)).rowcount)


def new_tuning_id() -> str:
    """Return an id for a tuning; they sort by time."""
    return new_id("tun")


def _is(state: TuningState) -> tuple[Any, ...]:
    table = schema.tunings
    return (
        table.c.id == state.id,
        table.c.phase == state.phase,
        table.c.attempt == state.attempt,
    )


def _change(connection: Connection) -> None:
    """Raise the revision; from here on other changes wait for this one."""
    table = schema.registry_changes
    statement = update(table).where(table.c.id == TUNINGS).values(revision=table.c.revision + 1)
    if connection.execute(statement).rowcount:
        return
    try:
        with connection.begin_nested():
            connection.execute(insert(table).values(id=TUNINGS, revision=1))
    except IntegrityError:  # another process made the first change ever at the same time
        connection.execute(statement)


def _require(connection: Connection, id_: str) -> TuningState:
    table = schema.tunings
    row = connection.execute(select(table).where(table.c.id == id_)).one_or_none()
    if row is None:
        raise NotFound("there is no tuning with this id")
    return _state_of(row)


def _values_of(state: TuningState) -> dict[str, Any]:
    spec = dataclasses.asdict(state.spec)
    return {
        "id": state.id,
        "name": state.spec.name,
        "version": state.spec.version,
        "spec": {name: value for name, value in spec.items() if name not in ("name", "version")},
        "phase": state.phase,
        "attempt": state.attempt,
        "error": state.error,
        "progress": state.progress.values(),
        "created_at": microseconds(state.created_at),
    }


def _state_of(row: Row[Any]) -> TuningState:
    return TuningState(
        id=row.id,
        spec=TuningSpec.of({"name": row.name, "version": row.version, **row.spec}),
        phase=cast("TuningPhase", row.phase),
        created_at=row.created_at / 1_000_000,
        attempt=row.attempt,
        error=row.error,
        started_at=_seconds(row.started_at),
        completed_at=_seconds(row.completed_at),
        progress=TuningProgress.of(row.progress),
    )


def _seconds(found: int | None) -> float | None:
    return None if found is None else found / 1_000_000
