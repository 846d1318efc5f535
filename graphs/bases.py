"""The models that adapters are over: which of them is meant, and what their replicas are told."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.config import GeneratorArgs
from deployments.types import GenerationRequest, LoadOrder, ModelSpec, ModelState, Registry
from graphs.adapters import own_spec, sent
from graphs.capabilities import refused
from graphs.handles import Deadline, call
from graphs.loaded import Loaded, closed, knows_replicas
from graphs.resting import call_awake
from graphs.routes import missing

TIMEOUT_S = 60.0
LEARN_S = 2.0
DETACH_S = 3.0


class Bases:
    """The configuration's generation models, and those of the registry, as bases of adapters."""

    def __init__(
        self, own: Mapping[str, tuple[GeneratorArgs, DeploymentHandle[Any]]] | None = None
    ) -> None:
        """Take the configuration's generation models by their ids."""
        self._specs = {model: own_spec(args) for model, (args, _) in (own or {}).items()}
        self._own = {
            model: Loaded.behind(model, handle) for model, (_, handle) in (own or {}).items()
        }

    @property
    def ids(self) -> frozenset[str]:
        """Return the ids of the configuration's models."""
        return frozenset(self._own)

    def own(self, model: str) -> Loaded | None:
        """Return a model of the configuration."""
        return self._own.get(model)

    def spec(self, order: LoadOrder, registry: Registry) -> ModelSpec:
        """Return the ready model that an order names as its base.

        Raises:
            InvalidRequest: it is an alias, which may name another model tomorrow.
            ModelNotFound: there is no such model.
            ModelUnavailable: it is being loaded.
        """
        if order.base in self._specs:
            return self._specs[order.base]
        if order.base in registry.aliases:
            raise refused("an adapter is over a model, not an alias: give its id", "model_id")
        ready = [one for one in registry.models.values() if one.phase == "ready"]
        named = [
            one
            for one in ready
            if not one.spec.base
            and one.spec.kind == "generation"
            and order.base in (one.id, one.spec.name)
        ]
        if not named:
            error = missing(registry, order.base, order.base, "generation")
            error.param = "model_id"
            raise error
        return min(named, key=lambda one: one.ready_at or 0.0).spec

    async def check(self, spec: ModelSpec, registry: Registry) -> None:
        """Have a replica of the base read an adapter; raises what is wrong with it."""
        async with self._replicas(spec.base, registry) as base:
            await call(base.handle.check_adapter.remote(spec.location), Deadline(TIMEOUT_S))

    async def probe(self, state: ModelState, hello: GenerationRequest, registry: Registry) -> None:
        """Have a replica of the base answer with an adapter; raises what the replica raises."""
        async with self._replicas(state.spec.base, registry) as base:
            await call(base.complete.remote(hello), Deadline(TIMEOUT_S))

    async def detach(self, state: ModelState, registry: Registry) -> None:
        """Have every replica of the base give an adapter up; raises RagError, safe to repeat."""
        async with self._replicas(state.spec.base, registry) as base:
            await knows_replicas(base.handle, LEARN_S)
            await call_awake(base.handle, "detach", Deadline(DETACH_S), sent(state).id)

    @asynccontextmanager
    async def _replicas(self, model: str, registry: Registry) -> AsyncIterator[Loaded]:
        if model in self._own:
            yield self._own[model]
            return
        state = registry.models.get(model)
        if state is None or state.phase != "ready":
            raise missing(registry, model, model, "generation")
        loaded = Loaded.of(state)
        try:
            yield loaded
        finally:
            await closed(loaded.handle)
