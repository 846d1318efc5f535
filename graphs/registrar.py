"""What an operator asks of models: load, unload, switch, and how everything is.

A load is checked here, before anything is written: that its source is allowed and whole, that an
engine can do what is asked, and that there is room. The rest is the lifecycle's.
"""

import asyncio
import dataclasses
import logging
from contextlib import suppress

from deployments.config import ModelsArgs
from deployments.errors import Conflict, EngineFailed, Overloaded
from deployments.stores.database import Database
from deployments.stores.leases import Lease
from deployments.stores.models import ModelStore
from deployments.stores.registry_revision import RegistryChanged
from deployments.types import (
    LOADED,
    Alias,
    LoadOrder,
    ModelSpec,
    ModelState,
    SwitchOrder,
)
from graphs.adapters import adapter_spec
from graphs.downloads import Downloads, settle
from graphs.fit import machine_free_bytes
from graphs.handles import Deadline, call_every, has_peers
from graphs.lifecycle import Lifecycle
from graphs.loaded import Loaded, closed, knows_replicas
from graphs.model_app import app_name
from graphs.models import Models
from graphs.progress import Observer
from graphs.ray_resources import num_gpus, resources
from graphs.room import Room
from graphs.serve_apps import Apps
from graphs.specs import order_of, spec_of
from graphs.tenure import LEASE_S
from graphs.versions import not_known, version_of

log = logging.getLogger("ray.serve")

FORGET_LEARN_S = 30.0
MAX_DECISIONS = 20
"""How often it is decided whether a model fits, while others change what there is."""


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
        self._room = Room(store, apps, args, self._changed)
        self._one_at_a_time = asyncio.Lock()
        self._lifecycle = Lifecycle(
            store,
            lease,
            apps,
            args,
            models.probe,
            self._observer.look,
            models.detach,
            models.bases.ids,
            Downloads(args, settle),
        )

    async def maintain(self) -> None:
        """Follow the registry, and make it true while the lease is ours; for ever."""
        await asyncio.gather(self._models.follow(notes_use=self._args.evict), self._lifecycle.run())

    async def follow(self) -> None:
        """Follow the registry, and leave it to others to make it true; for ever."""
        await self._models.follow(notes_use=self._args.evict)

    async def load(self, order: LoadOrder) -> ModelState:
        """Want a model to run; one that is loaded or loading stays as it is.

        Raises:
            InvalidRequest: the source is not allowed, or something cannot be had here.
            UnreadableModel: the model's files are damaged or incomplete.
            InsufficientResources: it does not fit.
            ModelNotFound: an adapter's base is not loaded.
            Conflict: the version is loaded with other settings, or is just being unloaded.
            Overloaded: too many others change what is loaded.
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
        state = await self._loaded(spec)
        await self._changed()
        return state

    async def reload(self, model: str) -> ModelState:
        """Want a version to run that was loaded before, as it was; see `load`.

        Its files are checked again: they may be others, or not allowed any more.
        """
        state = await self.state(model)
        return state if state.phase in LOADED else await self.load(order_of(state.spec))

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
        """Return what the registry says of a version now, which requests find from then on.

        Raises:
            ModelNotFound: nothing has this id.
        """
        await self._models.refresh()
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

    async def _loaded(self, spec: ModelSpec) -> ModelState:
        """Write down that a model is wanted, once there is room for it."""
        if not await self._needs_room(spec):
            return await asyncio.to_thread(self._store.load, spec)
        async with self._one_at_a_time:
            for _ in range(MAX_DECISIONS):
                seen = await asyncio.to_thread(self._store.revision)
                if await self._needs_room(spec):
                    await self._make_room(spec)
                with suppress(RegistryChanged):  # two at once would both take what is free
                    return await asyncio.to_thread(self._store.load, spec, seen=seen)
        raise Overloaded("models come and go all the time; try again shortly")

    async def _needs_room(self, spec: ModelSpec) -> bool:
        registry = await asyncio.to_thread(self._store.read)
        known = registry.models.get(spec.id)
        return known is None or known.phase in ("failed", "unloaded")

    async def _make_room(self, spec: ModelSpec) -> None:
        """Raise InsufficientResources unless it fits; an adapter's base must be able to read it."""
        if spec.base:
            registry = await asyncio.to_thread(self._store.read)
            await self._models.bases.check(spec, registry)
        else:
            await self._room.make(spec)


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
