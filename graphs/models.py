"""Which replicas a model id means now: the routing of models that are loaded at run time.

Each ingress holds a copy of the registry and asks twice a second whether it is still the newest. A
request's replicas are chosen once, so it ends with the version that it began with. The models of
the configuration are not here: `find` says None for the generation model's own id, at the cost of
one comparison. It does not know how models are loaded (``lifecycle.py``).
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.errors import ModelNotFound, ModelUnavailable, RagError
from deployments.stores.models import ModelStore
from deployments.types import (
    Alias,
    GenerationRequest,
    ModelKind,
    ModelState,
    Registry,
    SamplingParams,
)
from graphs.handles import Deadline, call
from graphs.loaded import Loaded, closed
from graphs.model_app import app_name

log = logging.getLogger("ray.serve")

POLL_S = 0.5
NOTE_USE_S = 10.0
LOADING_RETRY_S = 5
PROBE_TIMEOUT_S = 60.0

Handle = DeploymentHandle[Any]
EMPTY = Registry(-1, {}, {})


@dataclass(frozen=True, slots=True)
class Routes:
    """What every id means, as of one revision."""

    registry: Registry = EMPTY
    ready: Mapping[ModelKind, Mapping[str, Loaded]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    """Of each name without a version, the version that has been ready for longest."""

    ids: Mapping[ModelKind, tuple[str, ...]] = field(default_factory=dict)
    """Every id that answers: versions, and aliases of them."""

    def loaded(self, kind: ModelKind) -> Mapping[str, Loaded]:
        """Return the ready models of a kind by their ids."""
        return self.ready.get(kind, {})


class Models:
    """The routes of one ingress, kept fresh."""

    def __init__(self, store: ModelStore, own: Mapping[str, ModelKind]) -> None:
        """Take the registry, and the ids and kinds of the configuration's models."""
        self._store = store
        self.own = own
        self.routes = Routes()
        self._handles: dict[str, Loaded] = {}
        self._used: dict[str, float] = {}
        self._noted_at = time.monotonic()
        self._refreshing = asyncio.Lock()

    def ids(self, kind: ModelKind) -> tuple[str, ...]:
        """Return the ids of a kind that answer, those of the configuration aside."""
        return self.routes.ids.get(kind, ())

    async def find(self, model: str, kind: ModelKind) -> Loaded | None:
        """Return the replicas that a request for a model goes to; None: the configuration's own.

        Raises:
            ModelNotFound: nothing of this kind has this id.
            ModelUnavailable: it is being loaded, or is not loaded any more.
        """
        if self.own.get(model) == kind:
            return None
        try:
            return self._pick(model, kind)
        except (ModelNotFound, ModelUnavailable):  # loaded a moment ago, perhaps
            await self.refresh()
            return self._pick(model, kind)

    def _pick(self, model: str, kind: ModelKind) -> Loaded | None:
        routes = self.routes
        alias = routes.registry.aliases.get(model)
        chosen = routes.names.get(model, model) if alias is None else _drawn(alias)
        found = routes.loaded(kind).get(chosen)
        if found is not None:
            self._used[chosen] = time.time()
            return found
        if alias is not None and self.own.get(chosen) == kind:
            return None
        raise missing(routes.registry, model, chosen, kind)

    async def refresh(self) -> None:
        """Take over the newest registry, if it is newer; raises StoreUnavailable."""
        async with self._refreshing:
            revision = await asyncio.to_thread(self._store.revision)
            if revision != self.routes.registry.revision:
                self._take(await asyncio.to_thread(self._store.read))

    async def follow(self, *, notes_use: bool) -> None:
        """Keep the routes fresh, for ever; `notes_use` writes down when models were used."""
        while True:
            await asyncio.sleep(POLL_S)
            with contextlib.suppress(RagError):  # the old routes are better than none
                await self.refresh()
                if notes_use and self._used and time.monotonic() - self._noted_at > NOTE_USE_S:
                    used, self._used = self._used, {}
                    self._noted_at = time.monotonic()
                    await asyncio.to_thread(self._store.note_use, used)

    async def probe(self, state: ModelState) -> None:
        """Have a model compute something small; raises what its replica raises."""
        loaded, deadline = Loaded.of(state), Deadline(PROBE_TIMEOUT_S)
        try:
            if state.spec.kind == "generation":
                await call(loaded.complete.remote(_hello(state)), deadline)
            elif state.spec.kind == "embedding":
                await call(loaded.embed.remote(["Hello"]), deadline)
            else:
                await call(loaded.rerank.remote("Hello", ["Hello"]), deadline)
        finally:
            await closed(loaded.handle)

    def embedder(self, model: str) -> Loaded | None:
        """Return a loaded embedding model by the id of its version."""
        return self.routes.loaded("embedding").get(model)

    async def resolve(self, model: str, kind: ModelKind) -> str:
        """Return the id behind a name or alias, of an alias's targets the main one; as `find`."""
        await self.find(model, kind)
        registry = self.routes.registry
        if model in registry.aliases:
            return registry.aliases[model].main
        return self.routes.names.get(model, model)

    def _take(self, registry: Registry) -> None:
        states = sorted(registry.models.values(), key=lambda one: one.ready_at or 0.0)
        ready: dict[ModelKind, dict[str, Loaded]] = {}
        names: dict[str, str] = {}
        kept: dict[str, Loaded] = {}
        for state in states:
            if state.phase == "ready":
                loaded = self._handles.get(app_name(state)) or Loaded.of(state)
                kept[app_name(state)] = loaded
                ready.setdefault(state.spec.kind, {})[state.id] = loaded
                if state.spec.name not in self.own:
                    names.setdefault(state.spec.name, state.id)
            elif state.phase == "unloading" and app_name(state) in self._handles:
                kept[app_name(state)] = self._handles[app_name(state)]  # requests still run
        gone = [one for name, one in self._handles.items() if name not in kept]
        self._handles = kept
        self.routes = Routes(registry, ready, names, _ids(registry, ready, self.own))
        for one in gone:
            asyncio.ensure_future(closed(one.handle)).add_done_callback(_ignored)


def _hello(state: ModelState) -> GenerationRequest:
    return GenerationRequest(
        request_id=f"probe-{app_name(state)}",
        sampling=SamplingParams(max_tokens=1, temperature=0),
        prompt="Hello",
        is_streamed=False,
    )


def _drawn(alias: Alias) -> str:
    """Return one of an alias's targets, by their shares."""
    if len(alias.targets) == 1:
        return alias.targets[0].model
    point = random.random() * 100  # noqa: S311 - no secret
    for target in alias.targets:
        point -= target.percent
        if point < 0:
            return target.model
    return alias.main


def _ids(
    registry: Registry,
    ready: Mapping[ModelKind, Mapping[str, Loaded]],
    own: Mapping[str, ModelKind],
) -> dict[ModelKind, tuple[str, ...]]:
    ids: dict[ModelKind, list[str]] = {kind: list(models) for kind, models in ready.items()}
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
        state = next((s for s in registry.models.values() if s.spec.name == chosen), None)
    if state is not None and state.spec.kind == kind and state.phase == "loading":
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


def _ignored(_: object) -> None:
    """Keep a task from being collected before it ends."""
