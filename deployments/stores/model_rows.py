"""A model's state as a row, and back; times are microseconds there and seconds here."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from sqlalchemy import Row

from deployments.stores.ids import microseconds
from deployments.types import LoadProgress, ModelPhase, ModelSpec, ModelState

T = TypeVar("T")


def values_of(state: ModelState) -> dict[str, Any]:
    """Return the row of a model's state."""
    spec = dataclasses.asdict(state.spec)
    return {
        "name": state.spec.name,
        "version": state.spec.version,
        "kind": state.spec.kind,
        "spec": {name: value for name, value in spec.items() if name not in ("name", "version")},
        "phase": state.phase,
        "attempt": state.attempt,
        "error": state.error,
        "changed_at": microseconds(state.changed_at),
        "ready_at": _maybe(microseconds, state.ready_at),
        "retire_at": _maybe(microseconds, state.retire_at),
        "used_at": _maybe(microseconds, state.used_at),
        "progress": dataclasses.astuple(state.progress) if state.progress else [],
    }


def now() -> float:
    """Return the time in seconds, as a row gives it back."""
    return _seconds(microseconds(time.time()))


def _seconds(found: int) -> float:
    return found / 1_000_000


def _maybe(convert: Callable[[Any], T], value: Any) -> T | None:
    return None if value is None else convert(value)


def state_of(row: Row[Any]) -> ModelState:
    """Return the state that a row holds."""
    return ModelState(
        spec=ModelSpec(name=row.name, version=row.version, **row.spec),
        phase=cast("ModelPhase", row.phase),
        attempt=row.attempt,
        error=row.error,
        changed_at=_seconds(row.changed_at),
        ready_at=_maybe(_seconds, row.ready_at),
        retire_at=_maybe(_seconds, row.retire_at),
        used_at=_maybe(_seconds, row.used_at),
        progress=LoadProgress(*row.progress) if row.progress else None,
    )
