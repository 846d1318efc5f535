"""What every id means, as of one revision of the registry. It asks nobody."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from deployments.errors import ModelNotFound, ModelUnavailable, RagError
from deployments.types import Alias, ModelKind, ModelState, Registry
from graphs.adapters import names_of
from graphs.loaded import Loaded

LOADING_RETRY_S = 5
EMPTY = Registry(-1, {}, {})


@dataclass(frozen=True, slots=True)
class Routes:
    """What every id means, as of one revision."""

    registry: Registry = EMPTY
    ready: Mapping[ModelKind, Mapping[str, Loaded]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    """Of each name without a version, the version that has been ready for longest; the names of
    adapters, too, after their base's name and after its id."""

    ids: Mapping[ModelKind, tuple[str, ...]] = field(default_factory=dict)
    """Every id that answers: versions, and aliases of them."""

    def loaded(self, kind: ModelKind) -> Mapping[str, Loaded]:
        """Return the ready models of a kind by their ids."""
        return self.ready.get(kind, {})


def drawn(alias: Alias, is_able: Callable[[str], bool]) -> str:
    """Return one of an alias's targets, by their shares; where only one is able, that one."""
    targets = [one for one in alias.targets if is_able(one.model)] or alias.targets
    if len(targets) == 1:
        return targets[0].model
    shares = [target.percent for target in targets]
    return random.choices(targets, shares)[0].model  # noqa: S311 - no secret


def ids_of(
    registry: Registry,
    ready: Mapping[ModelKind, Mapping[str, Loaded]],
    own: Mapping[str, ModelKind],
) -> dict[ModelKind, tuple[str, ...]]:
    """Return every id that answers: versions, names of adapters, and aliases."""
    ids: dict[ModelKind, list[str]] = {kind: list(models) for kind, models in ready.items()}
    for model in ready.get("generation", {}):
        name = registry.models[model].spec.name
        if registry.models[model].spec.base and name not in ids["generation"]:
            ids["generation"].append(name)
    for alias in registry.aliases.values():
        for target in alias.targets:
            for kind in ("generation", "embedding", "reranking"):
                is_own = own.get(target.model) == kind
                if is_own or target.model in ready.get(kind, {}):
                    names = ids.setdefault(kind, [])
                    names += [] if alias.name in names else [alias.name]
    return {kind: tuple(names) for kind, names in ids.items()}


def missing(registry: Registry, model: str, chosen: str, kind: ModelKind) -> RagError:
    """Return why a model does not answer: it is not there, or not now."""
    error: RagError
    state = registry.models.get(chosen)
    if state is None:
        named = (s for s in registry.models.values() if chosen in (s.spec.name, *names_of(s)))
        state = next(named, None)
    if state is not None and state.spec.kind == kind and _is_coming(state):
        error = ModelUnavailable("the model is being loaded; try again shortly")
        error.retry_after_s = LOADING_RETRY_S
    elif state is not None and state.spec.kind == kind and model in registry.aliases:
        error = ModelUnavailable(f"the model behind this alias is {state.phase}")
        error.retry_after_s = LOADING_RETRY_S
    else:
        message = "no loaded model or collection has this id; see GET /v1/models"
        error = ModelNotFound(message)
    error.param = "model"
    return error


def _is_coming(state: ModelState) -> bool:
    """Return whether a model will answer soon; an adapter that is ready waits for its base."""
    return state.phase == "loading" or (state.phase == "ready" and bool(state.spec.base))
