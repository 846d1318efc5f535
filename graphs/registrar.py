"""What an operator asks of models: load, unload, switch, and how everything is.

A load is checked here, before anything is written: that its source is allowed and whole, that an
engine can do what is asked, and that there is room. The rest is the lifecycle's.
"""

import asyncio
import dataclasses
import logging
import time

from deployments.config import ModelsArgs
from deployments.errors import (
    Conflict,
    EngineFailed,
    InsufficientResources,
)
from deployments.stores.database import Database
from deployments.stores.leases import Lease
from deployments.stores.models import ModelStore
from deployments.types import (
    Alias,
    LoadOrder,
    ModelSpec,
    ModelState,
    Registry,
    SwitchOrder,
)
from graphs.adapters import adapter_spec
from graphs.fit import check_fit, machine_free_bytes, rooms
from graphs.handles import Deadline, call_every, has_peers
from graphs.lifecycle import LEASE_S, Lifecycle
from graphs.loaded import Loaded, closed, knows_replicas
from graphs.model_app import app_name
from graphs.models import Models
from graphs.progress import Observer
from graphs.ray_resources import num_gpus, resources
from graphs.serve_apps import Apps
from graphs.specs import spec_of
from graphs.versions import least_used, not_known, version_of

log = logging.getLogger("ray.serve")

EVICTION_TIMEOUT_S = 60.0
EVICTION_POLL_S = 0.2
FORGET_LEARN_S = 30.0


class Registrar:
    """Changes the registry for one ingress, and takes part in making it true."""

    def __init__(
        self,
        models: Models,
        store: ModelStore,
        database: Database,
        apps: Apps,
        args: ModelsArgs,
    ) -> None:
        self._models = models
        self._store = store
        self._args = args
        self._apps = apps
        self._observer = Observer()
        lease = Lease(database, "models", LEASE_S)
        self._lifecycle = Lifecycle(
            store, lease, apps, args, models.probe, self._observer.look, models.detach
        )

    async def maintain(self) -> None:
        """Follow the registry, and make it true while the lease is ours; for ever."""
        await asyncio.gather(self._models.follow(notes_use=self._args.evict), self._lifecycle.run())

    async def load(self, order: LoadOrder) -> ModelState:
        """Want a model to run; one that is loaded or loading stays as it is.

        Raises:
            InvalidRequest: the source is not allowed, or something cannot be had here.
            UnreadableModel: the model's files are damaged or incomplete.
            InsufficientResources: it does not fit.
            ModelNotFound: an adapter's base is not loaded.
            Conflict: the version is loaded with other settings, or is just being unloaded.
        """
        _require_cluster()
        if order.name in self._models.own and not order.version:
            raise Conflict("the configuration runs the model with this id; give a `version`")
        registry = await asyncio.to_thread(self._store.read)
        if order.adapter:
            base = self._models.bases.spec(order, registry)
            free = await asyncio.to_thread(machine_free_bytes)
            spec = await asyncio.to_thread(adapter_spec, order, base, self._args, free)
        else:
            total, _ = await asyncio.to_thread(resources)
            spec = await asyncio.to_thread(spec_of, order, num_gpus(total), self._args)
        known = registry.models.get(spec.id)
        if known is None or known.phase in ("failed", "unloaded"):
            await self._make_room(spec)
        state = await asyncio.to_thread(self._store.load, spec)
        await self._changed()
        return state

    async def reload(self, model: str) -> ModelState:
        """Want a version to run that was loaded before, as it was; see `load`."""
        state = await self.state(model)
        if state.phase in ("failed", "unloaded"):
            await self._make_room(state.spec)
        state = await asyncio.to_thread(self._store.load, state.spec)
        await self._changed()
        return state

    async def unload(self, model: str, *, force: bool) -> ModelState:
        """Want a model to be gone; see `ModelStore.unload`."""
        _require_cluster()
        if model in self._models.own:
            raise Conflict("the configuration runs this model; it cannot be unloaded")
        registry = await asyncio.to_thread(self._store.read)
        state = await asyncio.to_thread(
            self._store.unload, version_of(registry, model), force=force
        )
        await self._changed()
        return state

    async def switch(self, order: SwitchOrder) -> Alias:
        """Point an alias at a ready model; see `ModelStore.switch`."""
        _require_cluster()
        if order.alias in self._models.own:
            raise Conflict("the configuration runs a model with this id: choose another alias")
        if order.drain_s is None:
            order = dataclasses.replace(order, drain_s=self._args.drain_s)
        alias = await asyncio.to_thread(self._store.switch, order, self._models.own)
        await self._changed()
        return alias

    async def state(self, model: str) -> ModelState:
        """Return what the registry says of a version now; raises ModelNotFound."""
        registry = await asyncio.to_thread(self._store.read)
        if model not in registry.models:
            raise not_known()
        return registry.models[model]

    async def forget(self, late_s: float, deadline: Deadline) -> None:
        """Have every running replica of a loaded model keep nothing of the texts so far.

        Args:
            late_s: as `Generator.forget` takes it.
            deadline: of all of it.

        Raises:
            RagError: a replica did not; safe to repeat.
        """
        reports = await self._apps.reports()
        registry = await asyncio.to_thread(self._store.read)
        running = [
            state
            for state in registry.models.values()
            if (report := reports.get(app_name(state))) and report.num_running
        ]
        await asyncio.gather(*(_forget(state, late_s, deadline) for state in running))

    async def _changed(self) -> None:
        await self._models.refresh()
        self._lifecycle.wake()

    async def _make_room(self, spec: ModelSpec) -> None:
        """Raise InsufficientResources unless it fits; unload others first where that is allowed.

        An adapter's base must be able to read it.
        """
        if spec.base:
            registry = await asyncio.to_thread(self._store.read)
            await self._models.bases.check(spec, registry)
            return
        while True:
            registry = await asyncio.to_thread(self._store.read)
            try:
                await asyncio.to_thread(self._check_fit, spec, registry)
            except InsufficientResources:
                victim = least_used(registry) if self._args.evict else None
                if victim is None:
                    raise
                log.warning("%s is unloaded to make room for %s", victim.id, spec.id)
                await asyncio.to_thread(self._store.unload, victim.id)
                await self._changed()
                await self._gone(victim)
            else:
                return

    def _check_fit(self, spec: ModelSpec, registry: Registry) -> None:
        total, free = resources()
        coming = sum(
            one.spec.memory_bytes * max(one.spec.min_replicas, 1)
            for one in registry.models.values()
            if one.phase == "loading" and one.id != spec.id
        )
        check_fit(spec, self._args, rooms(total, free), machine_free_bytes() - coming)

    async def _gone(self, victim: ModelState) -> None:
        deadline = time.monotonic() + EVICTION_TIMEOUT_S
        while (await self.state(victim.id)).phase == "unloading":
            if time.monotonic() > deadline:
                raise InsufficientResources(f"{victim.id} has to go first, but is still in use")
            await asyncio.sleep(EVICTION_POLL_S)


async def _forget(state: ModelState, late_s: float, deadline: Deadline) -> None:
    handle = Loaded.of(state).handle
    try:
        if not await knows_replicas(handle, FORGET_LEARN_S):
            raise EngineFailed(f"the replicas of {state.id} are not known yet")
        args = (late_s,) if state.spec.kind == "generation" else ()
        await call_every(handle, "forget", deadline, *args)
    finally:
        await closed(handle)


def _require_cluster() -> None:
    if not has_peers():
        raise Conflict("models are loaded in a cluster only")
