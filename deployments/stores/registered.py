"""The models of the registry, one by one, within a transaction that somebody else began."""

import dataclasses
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from deployments.errors import ModelNotFound
from deployments.stores import schema
from deployments.stores.model_rows import state_of, values_of
from deployments.types import LOADED, ModelState


def has_id(model: str) -> tuple[Any, Any]:
    """Return the conditions that only the row of this id meets."""
    name, _, version = model.partition("@")
    return (schema.models.c.name == name, schema.models.c.version == version)


def find(connection: Connection, model: str) -> ModelState | None:
    """Return a model by its id, None where it was never loaded."""
    row = connection.execute(select(schema.models).where(*has_id(model))).one_or_none()
    return None if row is None else state_of(row)


def require(connection: Connection, model: str) -> ModelState:
    """Return a model by its id; raises ModelNotFound."""
    known = find(connection, model)
    if known is None:
        raise ModelNotFound("no model with this id was ever loaded; see GET /v1/models/status")
    return known


def add(connection: Connection, state: ModelState) -> ModelState:
    """Write a model that is not there yet; return it."""
    connection.execute(insert(schema.models).values(values_of(state)))
    return state


def change(connection: Connection, state: ModelState, **changes: Any) -> ModelState:
    """Write a model anew; return it as it is now."""
    changed = dataclasses.replace(state, **changes)
    connection.execute(update(schema.models).where(*has_id(state.id)).values(values_of(changed)))
    return changed


def loaded_adapters(connection: Connection) -> list[ModelState]:
    """Return the adapters that are loaded; a colon is in their names alone."""
    table = schema.models
    rows = connection.execute(select(table).where(table.c.name.contains(":")))
    return [state for state in map(state_of, rows) if state.phase in LOADED]


def num_collections(connection: Connection, model: str) -> int:
    """Return how many collections were embedded with a model."""
    table = schema.collections
    count = select(func.count()).select_from(table).where(table.c.embedding_model == model)
    return connection.scalars(count).one()
