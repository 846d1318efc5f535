"""Versions that nothing names any more: when each is to go, and which are due."""

from sqlalchemy import Connection, Select, select

from deployments.stores import schema
from deployments.stores.aliases import named_by
from deployments.stores.ids import microseconds
from deployments.stores.model_rows import now, state_of
from deployments.stores.registered import change, find, loaded_adapters
from deployments.types import LOADED, Alias, ModelState


def wanted(connection: Connection) -> set[str]:
    """Return the ids of the models that some alias names, or some loaded adapter is over."""
    return named_by(connection) | {adapter.spec.base for adapter in loaded_adapters(connection)}


def retire(connection: Connection, before: Alias | None, drain_s: float) -> None:
    """Let what an alias named before retire, unless it is named still; the others stay."""
    named = wanted(connection)
    for model in sorted(named):
        if (state := find(connection, model)) and state.retire_at is not None:
            change(connection, state, retire_at=None)
    for target in before.targets if before else ():
        state = find(connection, target.model)
        if state is not None and state.id not in named and state.phase in LOADED:
            change(connection, state, retire_at=now() + drain_s)


def due(until: float) -> Select[tuple[object, ...]]:
    """Return the query for the rows that retire before `until`, in seconds since 1970."""
    return select(schema.models).where(schema.models.c.retire_at <= microseconds(until))


def unload_due(connection: Connection, until: float) -> list[ModelState]:
    """Begin to unload what is due and still unnamed; return those."""
    named = wanted(connection)
    going = []
    for state in [state_of(row) for row in connection.execute(due(until))]:
        if state.id in named or state.phase not in LOADED:
            change(connection, state, retire_at=None)
            continue
        values = {"phase": "unloading", "changed_at": now(), "retire_at": None}
        going.append(change(connection, state, **values))
    return going
