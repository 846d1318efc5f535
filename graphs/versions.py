"""Which version of the registry is meant, and which can be spared."""

from deployments.errors import Conflict, ModelNotFound
from deployments.types import LOADED, ModelState, Registry
from graphs.adapters import names_of


def version_of(registry: Registry, model: str) -> str:
    """Return the id that a name without a version means: its only loaded version's.

    Raises:
        ModelNotFound: nothing has this name.
        Conflict: several versions have it.
    """
    if model in registry.models:
        return model
    known = [one for one in registry.models.values() if model in (one.spec.name, *names_of(one))]
    running = [one for one in known if one.phase != "unloaded"] or known
    if not running:
        raise not_known()
    if len(running) > 1:
        raise Conflict("several versions have this name; say which, as `name@version`")
    return running[0].id


def spare(registry: Registry) -> list[ModelState]:
    """Return the ready models that no alias or adapter names, the one used longest ago first."""
    named = {one.model for alias in registry.aliases.values() for one in alias.targets}
    named |= {one.spec.base for one in registry.models.values() if one.phase in LOADED}
    free = [
        one
        for one in registry.models.values()
        if one.phase == "ready" and one.id not in named and not one.spec.base
    ]
    return sorted(free, key=lambda one: one.used_at or one.ready_at or 0.0)


def not_known() -> ModelNotFound:
    """Return the error for a model that was never loaded."""
    return ModelNotFound("no model with this id was ever loaded; see GET /v1/models/status")
