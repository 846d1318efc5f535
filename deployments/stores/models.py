"""The registry of models that are loaded at run time, and their aliases: what should run.

Every change is one transaction that first raises the registry's revision; so changes of many
processes come one after the other, and a reader sees by one number whether anything is new. It does
not know what runs (``graphs/lifecycle.py`` makes that agree).
"""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select, update

from deployments.errors import Conflict
from deployments.stores import schema
from deployments.stores.aliases import (
    aliases_of,
    forget_in_aliases,
    named_by,
    switched,
    write_alias,
)
from deployments.stores.database import Database
from deployments.stores.ids import microseconds
from deployments.stores.model_rows import now, state_of, values_of
from deployments.stores.registered import (
    add,
    change,
    find,
    has_id,
    loaded_adapters,
    num_collections,
    require,
)
from deployments.stores.registry_revision import ONLY, REVISION, raise_revision
from deployments.stores.retirements import due, retire, unload_due
from deployments.types import (
    LOADED,
    Alias,
    LoadProgress,
    ModelPhase,
    ModelSpec,
    ModelState,
    Registry,
    SwitchOrder,
)


class ModelStore:
    """Models and aliases; safe to use from many threads and processes.

    Every method raises StoreUnavailable when the database does not answer; all are safe to repeat.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def revision(self) -> int:
        """Return the number of changes so far."""
        rows = self._database.rows(REVISION, ONLY)
        return int(rows[0][0]) if rows else 0

    def read(self) -> Registry:
        """Return everything as it is at one moment."""
        with self._database.read() as connection:
            revision = connection.scalars(REVISION, ONLY).one_or_none() or 0
            models = [state_of(row) for row in connection.execute(select(schema.models))]
            aliases = aliases_of(connection)
        return Registry(revision, {one.id: one for one in models}, aliases)

    def load(self, spec: ModelSpec, *, seen: int | None = None) -> ModelState:
        """Want a model to run; one that is loaded, or loading, is returned as it is.

        Args:
            spec: of the model.
            seen: revision that this was decided by; None: any.

        Raises:
            RegistryChanged: it is another by now.
            Conflict: the version is loaded with other settings, or is just being unloaded, or its
                vectors are in collections and the weights would be others, or the base of an
                adapter is not ready.
        """
        with self._database.write() as connection:
            raise_revision(connection, seen=seen)
            known = find(connection, spec.id)
            if known is None or known.phase not in LOADED:
                _check_base(connection, spec)
            if known is None:
                return add(connection, ModelState(spec=spec, **_started(attempt=1)))
            if known.phase == "unloading":
                raise Conflict(f"{spec.id} is just being unloaded; try again when it is gone")
            if known.phase in LOADED:
                if _asked(known.spec) != _asked(spec):
                    message = f"{spec.id} is loaded with other settings: load another version"
                    raise Conflict(f"{message}, or unload this one first")
                return known
            if _weights(known.spec) != _weights(spec) and num_collections(connection, spec.id):
                raise Conflict("collections hold vectors of this version: load another version")
            started = _started(attempt=known.attempt + 1)
            return change(connection, known, spec=spec, **started)

    def unload(self, model: str, *, force: bool = False) -> ModelState:
        """Want a model to be gone; what is gone or going is returned as it is.

        Raises:
            ModelNotFound: it was never loaded.
            Conflict: an alias names it, a collection was embedded with it, or adapters are over it,
                and `force` is false; else the adapters go, too.
        """
        with self._database.write() as connection:
            raise_revision(connection)
            known = require(connection, model)
            if known.phase in ("unloading", "unloaded"):
                return known
            if not force:
                _check_unused(connection, model)
            for adapter in loaded_adapters(connection):
                if adapter.spec.base == model:
                    _unload(connection, adapter)
            return _unload(connection, known)

    def switch(self, order: SwitchOrder, own: Mapping[str, str]) -> Alias:
        """Point an alias at a ready model, wholly or for a share of its requests.

        What no alias names any more afterwards retires when its drain time has passed.

        Args:
            order: what to change.
            own: the configuration's models, which need no loading, and each one's kind.

        Raises:
            ModelNotFound: the target was never loaded.
            Conflict: it is not ready, of another kind, or a share is wanted of an alias that
                names nothing yet.
        """
        with self._database.write() as connection:
            raise_revision(connection)
            kind = own.get(order.to) or _ready_kind(connection, order.to)
            before = aliases_of(connection).get(order.alias)
            after = switched(before, order)
            for target in after.targets:
                if _kind(connection, target.model, own) != kind:
                    raise Conflict("the alias names a model of another kind: use another alias")
            write_alias(connection, after)
            retire(connection, before, order.drain_s or 0.0)
        return after

    def advance(
        self, state: ModelState, phase: ModelPhase, *, error: str = "", is_ready: bool = False
    ) -> bool:
        """Take a model to its next phase, unless it is no longer where `state` says.

        `is_ready`: it becomes ready now, rather than keeping the time at which it was.
        """
        changed_at = microseconds(time.time())
        values: dict[str, Any] = {"phase": phase, "error": error, "changed_at": changed_at}
        if is_ready:
            values["ready_at"] = changed_at
        table = schema.models
        with self._database.write() as connection:
            raise_revision(connection)
            statement = update(table).where(
                *has_id(state.id), table.c.attempt == state.attempt, table.c.phase == state.phase
            )
            return bool(connection.execute(statement.values(values)).rowcount)

    def settle(self, state: ModelState, spec: ModelSpec) -> bool:
        """Write what will run of a load whose files are here, unless it is no longer one."""
        table = schema.models
        with self._database.write() as connection:
            raise_revision(connection)
            statement = update(table).where(
                *has_id(state.id), table.c.attempt == state.attempt, table.c.phase == "loading"
            )
            values = values_of(dataclasses.replace(state, spec=spec))["spec"]
            return bool(connection.execute(statement.values(spec=values)).rowcount)

    def note_progress(self, state: ModelState, progress: LoadProgress) -> None:
        """Write down how far a load is; that is no change of the registry."""
        table = schema.models
        statement = update(table).where(
            *has_id(state.id), table.c.attempt == state.attempt, table.c.phase == "loading"
        )
        with self._database.write() as connection:
            connection.execute(statement.values(progress=dataclasses.astuple(progress)))

    def note_use(self, used_at: Mapping[str, float]) -> None:
        """Write down when models were last used; that is no change of the registry."""
        with self._database.write() as connection:
            for model, when in used_at.items():
                statement = update(schema.models).where(*has_id(model))
                connection.execute(statement.values(used_at=microseconds(when)))

    def unload_retired(self, until: float) -> list[ModelState]:
        """Begin to unload what retired before `until` and is still unnamed; return those."""
        with self._database.read() as connection:
            if connection.execute(due(until)).first() is None:
                return []
        with self._database.write() as connection:
            raise_revision(connection)
            return unload_due(connection, until)


def _asked(spec: ModelSpec) -> ModelSpec:
    return dataclasses.replace(spec, location="", num_bytes=0, memory_bytes=0)


def _weights(spec: ModelSpec) -> tuple[object, ...]:
    """Return what decides where a text's vector lies."""
    return (spec.kind, spec.engine, spec.source, spec.sha256, spec.options)


def _started(attempt: int) -> dict[str, Any]:
    return {
        "phase": "loading",
        "attempt": attempt,
        "error": "",
        "changed_at": now(),
        "ready_at": None,
        "retire_at": None,
        "used_at": None,
        "progress": None,
    }


def _ready_kind(connection: Connection, model: str) -> str:
    known = require(connection, model)
    if known.phase != "ready":
        raise Conflict(f"{model} is {known.phase}; an alias can only name a model that is ready")
    return known.spec.kind


def _kind(connection: Connection, model: str, own: Mapping[str, str]) -> str:
    return own.get(model) or require(connection, model).spec.kind


def _check_unused(connection: Connection, model: str) -> None:
    if model in named_by(connection):
        raise Conflict("an alias names this model: switch it to another first, or use `force`")
    if num_collections(connection, model):
        raise Conflict("collections were embedded with this model: delete them, or use `force`")
    if any(adapter.spec.base == model for adapter in loaded_adapters(connection)):
        raise Conflict("adapters are loaded over this model: unload them first, or use `force`")


def _check_base(connection: Connection, spec: ModelSpec) -> None:
    base = find(connection, spec.base) if spec.base else None
    if base is not None and base.phase != "ready":
        raise Conflict(f"{spec.base} is {base.phase}; an adapter needs a base that is ready")


def _unload(connection: Connection, state: ModelState) -> ModelState:
    forget_in_aliases(connection, state.id)
    phase: ModelPhase = "unloaded" if state.phase == "failed" else "unloading"
    return change(connection, state, phase=phase, changed_at=now(), retire_at=None)
