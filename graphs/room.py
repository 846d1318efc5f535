"""Room for a model that is to be loaded: whether there is enough, and who goes where there is not.

What is counted is what is free now, less what other loads will take that have no place yet.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployments.config import ModelsArgs
from deployments.errors import Conflict, InsufficientResources, StoreUnavailable
from deployments.stores.models import ModelStore
from deployments.types import ModelSpec, ModelState, Registry
from graphs.fit import NodeRoom, check_fit, machine_free_bytes, rooms, with_more, without
from graphs.model_app import app_name
from graphs.ray_resources import resources
from graphs.serve_apps import AppReport, Apps
from graphs.versions import spare

log = logging.getLogger("ray.serve")

EVICTION_TIMEOUT_S = 60.0
EVICTION_POLL_S = 0.2
FREED_S = 3.0
"""How long Ray may take to say that what a replica had is free."""

Told = Callable[[], Coroutine[Any, Any, None]]
"""Is called when the registry was changed."""


@dataclass(frozen=True, slots=True)
class Free:
    """What every node has free, all that it has, and the bytes of memory free on this machine."""

    nodes: Sequence[NodeRoom]
    total: Sequence[NodeRoom]
    here: int


class Room:
    """What is free, asked anew for every load."""

    def __init__(self, store: ModelStore, apps: Apps, args: ModelsArgs, told: Told) -> None:
        self._store = store
        self._apps = apps
        self._args = args
        self._told = told

    async def make(self, spec: ModelSpec) -> None:
        """Return once a model fits; others are unloaded for it where that is allowed and helps.

        Raises:
            InsufficientResources: it does not fit; says what it needs and what is free.
        """
        refusal = self._refusal(spec, await self._free(spec))
        kept: set[str] = set()
        while refusal is not None:
            victim = await self._victim(spec, kept) if self._args.evict else None
            if victim is None:
                if (refusal := self._refusal(spec, await self._free(spec))) is None:
                    return  # Ray has only now said what is free
                raise refusal
            try:
                await self._evict(victim, spec)
            except Conflict:  # it is needed after all
                kept.add(victim.id)
                continue
            until = time.monotonic() + FREED_S
            while refusal := self._refusal(spec, await self._free(spec)):
                if time.monotonic() > until:
                    break
                await asyncio.sleep(EVICTION_POLL_S)

    async def _victim(self, spec: ModelSpec, kept: set[str]) -> ModelState | None:
        """Return who goes first of those that have to; None where no one has, or none helps."""
        registry = await asyncio.to_thread(self._store.read)
        victims = [one for one in spare(registry) if one.id not in kept]
        free = await self._free(spec)
        if not victims or self._refusal(spec, free, victims) is not None:
            return None
        for one in reversed(victims):  # who was used last stays first
            rest = [other for other in victims if other is not one]
            if self._refusal(spec, free, rest) is None:
                victims = rest
        return next(iter(victims), None)

    def _refusal(
        self, spec: ModelSpec, free: Free, gone: Sequence[ModelState] = ()
    ) -> InsufficientResources | None:
        """Return why a model does not fit, though some are gone, wherever they are."""
        specs = [one.spec for one in gone]
        nodes = with_more(free.nodes, free.total, specs, self._args)
        here = free.here + sum(one.memory_bytes * max(one.min_replicas, 1) for one in specs)
        try:
            check_fit(spec, self._args, nodes, here)
        except InsufficientResources as error:
            return error
        return None

    async def _free(self, spec: ModelSpec) -> Free:
        registry = await asyncio.to_thread(self._store.read)
        total, free = await asyncio.to_thread(resources)
        here = await asyncio.to_thread(machine_free_bytes)
        coming = _coming(registry, spec.id)
        here -= sum(one.spec.memory_bytes * max(one.spec.min_replicas, 1) for one in coming)
        nodes = rooms(total, free)
        try:
            reports = await self._apps.reports()
            unplaced = [one.spec for one in coming for _ in range(_num_unplaced(one, reports))]
            nodes = without(nodes, unplaced, self._args)
        except StoreUnavailable:  # then Ray's own figures are the best there is
            pass
        return Free(nodes, rooms(total, total), here)

    async def _evict(self, victim: ModelState, spec: ModelSpec) -> None:
        """Unload a model and wait until it is gone; raises Conflict where something needs it."""
        await asyncio.to_thread(self._store.unload, victim.id)
        log.warning("%s is unloaded to make room for %s", victim.id, spec.id)
        await self._told()
        deadline = time.monotonic() + EVICTION_TIMEOUT_S
        while await self._is_going(victim.id):
            if time.monotonic() > deadline:
                raise InsufficientResources(f"{victim.id} has to go first, but is still in use")
            await asyncio.sleep(EVICTION_POLL_S)

    async def _is_going(self, model: str) -> bool:
        registry = await asyncio.to_thread(self._store.read)
        return registry.models[model].phase == "unloading"


def _coming(registry: Registry, model: str) -> list[ModelState]:
    """Return the other models that are being loaded, each of which has replicas of its own."""
    states = registry.models.values()
    return [
        one for one in states if one.phase == "loading" and one.id != model and not one.spec.base
    ]


def _num_unplaced(state: ModelState, reports: Mapping[str, AppReport]) -> int:
    """Return how many replicas of a load have no process yet: Ray counts them as none."""
    report = reports.get(app_name(state))
    return max(max(state.spec.min_replicas, 1) - len(report.pids if report else ()), 0)
