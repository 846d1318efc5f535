"""What an operator asks of models: load, unload, switch, and how everything is.

A load is checked here, before anything is written: that its source is allowed and whole, that an
engine can do what is asked, and that there is room. The rest is the lifecycle's.
"""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.config import ModelsArgs
from deployments.engines.inspection.files import ModelFiles, inspect
from deployments.engines.inspection.source import find_source, is_trusted
from deployments.engines.weights import EMBEDDED
from deployments.errors import (
    Conflict,
    InsufficientResources,
    ModelNotFound,
    RagError,
    StoreUnavailable,
)
from deployments.stores.database import Database
from deployments.stores.leases import Lease
from deployments.stores.models import ModelStore
from deployments.types import (
    Alias,
    ClusterStatus,
    LoadOrder,
    ModelSpec,
    ModelState,
    ModelStatus,
    NodeVitals,
    Registry,
    ReplicaVitals,
    SwitchOrder,
)
from deployments.vitals import node_vitals
from graphs.capabilities import device_of, engine_of, precision_of, refused
from graphs.fit import check_fit, machine_free_bytes, memory_of, rooms
from graphs.handles import Deadline, call_all, has_peers
from graphs.lifecycle import LEASE_S, Lifecycle
from graphs.model_app import app_name, args_of, replica_name
from graphs.models import Models
from graphs.progress import Observer
from graphs.ray_resources import num_gpus, resources
from graphs.serve_apps import ServeApps

log = logging.getLogger("ray.serve")

FAKE = "fake"
FIRST_VERSION = "1"
EVICTION_TIMEOUT_S = 60.0
EVICTION_POLL_S = 0.2


class Registrar:
    """Changes the registry for one ingress, and takes part in making it true."""

    def __init__(
        self, models: Models, store: ModelStore, database: Database, args: ModelsArgs
    ) -> None:
        self._models = models
        self._store = store
        self._args = args
        self._observer = Observer()
        lease = Lease(database, "models", LEASE_S)
        self._apps = apps = ServeApps(args)
        self._lifecycle = Lifecycle(store, lease, apps, args, models.probe, self._observer.look)

    async def maintain(self) -> None:
        """Follow the registry, and make it true while the lease is ours; for ever."""
        await asyncio.gather(self._models.follow(notes_use=self._args.evict), self._lifecycle.run())

    async def load(self, order: LoadOrder) -> ModelState:
        """Want a model to run; one that is loaded or loading stays as it is.

        Raises:
            InvalidRequest: the source is not allowed, or something cannot be had here.
            UnreadableModel: the model's files are damaged or incomplete.
            InsufficientResources: it does not fit.
            Conflict: the version is loaded with other settings, or is just being unloaded.
        """
        _require_cluster()
        if order.name in self._models.own and not order.version:
            raise Conflict("the configuration runs the model with this id; give a `version`")
        total, _ = await asyncio.to_thread(resources)
        spec = await asyncio.to_thread(spec_of, order, num_gpus(total), self._args)
        registry = await asyncio.to_thread(self._store.read)
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

    async def status(self, own: Sequence[ModelStatus], deadline: Deadline) -> ClusterStatus:
        """Return every model with its replicas, beside those of the configuration."""
        registry = await asyncio.to_thread(self._store.read)
        states = list(registry.models.values())
        targets = await self._targets()
        vitals = await asyncio.gather(*(self._vitals(state, deadline) for state in states))
        loaded = [
            _status(state, replicas, targets.get((app_name(state), replica_name(state.spec.kind))))
            for state, replicas in zip(states, vitals, strict=True)
        ]
        models = (*own, *loaded)
        nodes = {one.node.host: one.node for model in models for one in model.replicas}
        here = await asyncio.to_thread(node_vitals)
        return ClusterStatus(
            models, tuple(registry.aliases.values()), _each({**nodes, here.host: here})
        )

    async def _targets(self) -> Mapping[tuple[str, str], int]:
        try:
            return await self._apps.targets()
        except StoreUnavailable:  # everything else can be told
            return {}

    async def _vitals(self, state: ModelState, deadline: Deadline) -> tuple[ReplicaVitals, ...]:
        loaded = self._models.routes.loaded(state.spec.kind).get(state.id)
        return () if loaded is None else await vitals_of(loaded.handle, deadline)

    async def _changed(self) -> None:
        await self._models.refresh()
        self._lifecycle.wake()

    async def _make_room(self, spec: ModelSpec) -> None:
        """Raise InsufficientResources unless it fits; unload others first where that is allowed."""
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


def spec_of(order: LoadOrder, gpus: int, args: ModelsArgs) -> ModelSpec:
    """Return what will run, every choice made and every file checked. Blocks.

    Raises:
        InvalidRequest: the source is not allowed, or something cannot be had here.
        UnreadableModel: the model's files are damaged or incomplete.
    """
    device = device_of(order, gpus)
    files = None
    if order.engine != FAKE:
        weights = find_source(order.source, args, digest=order.sha256)
        files = inspect(weights, is_trusted=is_trusted(weights, args))
    elif order.source or order.sha256:
        raise refused("the fake engine has no weights: leave the source out", "source")
    kind = order.kind or (files.kind if files else "generation")
    if files is not None and files.kind != kind:
        raise refused(f"the files are those of a model for {files.kind}", "kind")
    spec = ModelSpec(
        name=order.name,
        version=order.version or FIRST_VERSION,
        kind=kind,
        engine=engine_of(order, kind),
        source=order.source,
        sha256=order.sha256,
        device=device,
        precision=precision_of(order, kind, device),
        min_replicas=order.min_replicas,
        max_replicas=order.max_replicas,
        tensor_parallel=order.tensor_parallel,
        adapter=order.adapter,
        options=dict(order.options),
        location=_location(order.source, files),
        num_bytes=files.num_bytes if files else 0,
    )
    if files is None:
        args_of(spec)
        return spec
    return dataclasses.replace(spec, memory_bytes=memory_of(spec, files, has_bf16=has_bf16()))


def _location(source: str, files: ModelFiles | None) -> str:
    """Return what a replica reads: a name where the package is looked up anew, else the path."""
    if files is None or source.startswith(EMBEDDED):
        return source
    return str(files.paths[0] if files.weights.gguf_file else files.weights.folder)


def version_of(registry: Registry, model: str) -> str:
    """Return the id that a name without a version means: its only loaded version's.

    Raises:
        ModelNotFound: nothing has this name.
        Conflict: several versions have it.
    """
    if model in registry.models:
        return model
    known = [one for one in registry.models.values() if one.spec.name == model]
    running = [one for one in known if one.phase != "unloaded"] or known
    if not running:
        raise not_known()
    if len(running) > 1:
        raise Conflict("several versions have this name; say which, as `name@version`")
    return running[0].id


def least_used(registry: Registry) -> ModelState | None:
    """Return the ready model that was used longest ago and that no alias names."""
    named = {one.model for alias in registry.aliases.values() for one in alias.targets}
    free = [one for one in registry.models.values() if one.phase == "ready" and one.id not in named]
    return min(free, key=lambda one: one.used_at or one.ready_at or 0.0, default=None)


def not_known() -> ModelNotFound:
    """Return the error for a model that was never loaded."""
    return ModelNotFound("no model with this id was ever loaded; see GET /v1/models/status")


async def vitals_of(handle: DeploymentHandle[Any], deadline: Deadline) -> tuple[ReplicaVitals, ...]:
    """Return what each replica says of itself, none where they do not answer."""
    try:
        return tuple(await call_all(handle, "vitals", deadline))
    except RagError:
        return ()


def _status(
    state: ModelState, replicas: tuple[ReplicaVitals, ...], num_wanted: int | None
) -> ModelStatus:
    spec = state.spec
    return ModelStatus(
        id=state.id,
        kind=spec.kind,
        device=spec.device,
        precision=spec.precision,
        engine=spec.engine,
        min_replicas=spec.min_replicas,
        max_replicas=spec.max_replicas,
        replicas=replicas,
        num_wanted=num_wanted,
        state=state,
    )


def _each(nodes: dict[str, NodeVitals]) -> tuple[NodeVitals, ...]:
    return tuple(nodes[host] for host in sorted(nodes))


def _require_cluster() -> None:
    if not has_peers():
        raise Conflict("models are loaded in a cluster only")


@cache
def has_bf16() -> bool:
    """Return whether this machine's processors multiply bf16, which `auto` then computes in."""
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
