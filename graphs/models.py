"""Which replicas a model id means now: the routing of models that are loaded at run time.

Each ingress holds a copy of the registry and asks twice a second whether it is still the newest. A
request's replicas are chosen once, so it ends with the version that it began with. The models of
the configuration are not here: `find` says None for the generation model's own id, at the cost of
one comparison. It does not know how models are loaded (``lifecycle.py``).
"""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.errors import ModelNotFound, ModelUnavailable, RagError
from deployments.stores.models import ModelStore
from deployments.types import (
    GenerationRequest,
    ModelKind,
    ModelState,
    Registry,
    SamplingParams,
)
from graphs.adapters import names_of, sent
from graphs.bases import Bases
from graphs.handles import Deadline, call
from graphs.loaded import Loaded, closed
from graphs.model_app import app_name
from graphs.routes import Routes, drawn, ids_of, missing

log = logging.getLogger("ray.serve")

POLL_S = 0.5
NOTE_USE_S = 10.0
PROBE_TIMEOUT_S = 60.0

Handle = DeploymentHandle[Any]


class Models:
    """The routes of one ingress, kept fresh."""

    def __init__(
        self, store: ModelStore, own: Mapping[str, ModelKind], bases: Bases | None = None
    ) -> None:
        """Take the registry, the ids and kinds of the configuration's models, and the bases."""
        self._store = store
        self.own = own
        self.bases = bases or Bases()
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
        found = await self.route(model, kind)
        return None if isinstance(found, str) else found

    async def route(self, model: str, kind: ModelKind) -> Loaded | str:
        """Return the same, of the configuration's models the id that the request means."""
        if self.own.get(model) == kind:
            return model
        try:
            return self._pick(model, kind)
        except (ModelNotFound, ModelUnavailable):  # loaded a moment ago, perhaps
            await self.refresh()
            return self._pick(model, kind)

    def _pick(self, model: str, kind: ModelKind) -> Loaded | str:
        routes = self.routes
        alias = routes.registry.aliases.get(model)
        ready = routes.loaded(kind)
        if alias is None:
            chosen = routes.names.get(model, model)
        else:
            chosen = drawn(alias, lambda one: one in ready or self.own.get(one) == kind)
        found = ready.get(chosen)
        if found is not None:
            self._used[chosen] = time.time()
            return found
        if alias is not None and self.own.get(chosen) == kind:
            return chosen
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
            try:
                await self.refresh()
                if notes_use and self._used and time.monotonic() - self._noted_at > NOTE_USE_S:
                    await self._note_use()
            except RagError:  # the old routes are better than none
                pass
            except Exception:  # whatever it is, later changes must be followed
                log.exception("the registry of models could not be followed")

    async def _note_use(self) -> None:
        self._noted_at = time.monotonic()
        used, self._used = self._used, {}
        try:
            await asyncio.to_thread(self._store.note_use, used)
        except RagError:
            self._used = used | self._used
            raise

    async def probe(self, state: ModelState) -> None:
        """Have a model compute something small; raises what its replica raises."""
        if state.spec.base:
            await self.refresh()
            await self.bases.probe(state, _hello(state), self.routes.registry)
            return
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

    async def detach(self, state: ModelState) -> None:
        """Have every replica of an adapter's base give it up; raises RagError, safe to repeat."""
        await self.refresh()
        await self.bases.detach(state, self.routes.registry)

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
            if state.spec.base:
                continue
            if state.phase == "ready":
                loaded = self._handles.get(app_name(state)) or Loaded.of(state)
                kept[app_name(state)] = loaded
                ready.setdefault(state.spec.kind, {})[state.id] = loaded
                if state.spec.name not in self.own:
                    names.setdefault(state.spec.name, state.id)
            elif state.phase == "unloading" and app_name(state) in self._handles:
                kept[app_name(state)] = self._handles[app_name(state)]  # requests still run
        self._add_adapters(states, ready, names)
        gone = [one for name, one in self._handles.items() if name not in kept]
        self._handles = kept
        self.routes = Routes(registry, ready, names, ids_of(registry, ready, self.own))
        for one in gone:
            asyncio.ensure_future(closed(one.handle)).add_done_callback(_ignored)

    def _add_adapters(
        self,
        states: Sequence[ModelState],
        ready: dict[ModelKind, dict[str, Loaded]],
        names: dict[str, str],
    ) -> None:
        """Add the adapters whose base is ready: they have its replicas."""
        models = ready.setdefault("generation", {})
        for state in states:
            if state.spec.base and state.phase == "ready":
                base = self.bases.own(state.spec.base) or models.get(state.spec.base)
                if base is not None:
                    models[state.id] = dataclasses.replace(base, id=state.id, adapter=sent(state))
                    for name in names_of(state):
                        names.setdefault(name, state.id)


def _hello(state: ModelState) -> GenerationRequest:
    return GenerationRequest(
        request_id=f"probe-{app_name(state)}",
        sampling=SamplingParams(max_tokens=1, temperature=0),
        prompt="Hello",
        is_streamed=False,
        adapter=sent(state) if state.spec.base else None,
    )


def _ignored(_: object) -> None:
    """Keep a task from being collected before it ends."""
