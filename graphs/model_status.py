"""How everything that runs models is now: their replicas, what Serve wants, and the machines."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.config import EmbedderArgs, GeneratorArgs, RerankerArgs
from deployments.errors import RagError, StoreUnavailable
from deployments.types import (
    ClusterStatus,
    ModelKind,
    ModelState,
    ModelStatus,
    Registry,
    ReplicaVitals,
)
from deployments.vitals import node_vitals
from graphs.handles import Deadline, call_all
from graphs.loaded import knows_replicas
from graphs.model_app import app_name, replica_name
from graphs.models import Models
from graphs.serve_apps import Apps

LEARN_S = 2.0

Targets = Mapping[tuple[str, str], int]
"""How many replicas Serve wants, by application and deployment."""


@dataclass(frozen=True, slots=True)
class OwnModel:
    """A model of the configuration."""

    kind: ModelKind
    args: GeneratorArgs | EmbedderArgs | RerankerArgs
    handle: DeploymentHandle[Any]


class StatusBoard:
    """Asks every replica of every model."""

    def __init__(self, own: Sequence[OwnModel], models: Models, apps: Apps) -> None:
        self._own = own
        self._models = models
        self._apps = apps

    async def status(self, registry: Registry, deadline: Deadline) -> ClusterStatus:
        """Return the configuration's models and the registry's, aliases, and machines."""
        try:
            targets = await asyncio.wait_for(self._apps.targets(), LEARN_S)
        except (StoreUnavailable, TimeoutError):  # everything else can be told
            targets = {}
        states = registry.models.values()
        models = await asyncio.gather(
            *(self._own_status(one, targets, deadline) for one in self._own),
            *(self._loaded_status(one, targets, deadline) for one in states),
        )
        nodes = {one.node.host: one.node for model in models for one in model.replicas}
        here = await asyncio.to_thread(node_vitals)
        nodes[here.host] = here
        hosts = tuple(nodes[host] for host in sorted(nodes))
        return ClusterStatus(tuple(models), tuple(registry.aliases.values()), hosts)

    async def _own_status(self, one: OwnModel, targets: Targets, deadline: Deadline) -> ModelStatus:
        wanted = targets.get((one.handle.app_name, one.handle.deployment_name))
        return ModelStatus(
            id=one.args.model,
            kind=one.kind,
            device=one.args.device,
            precision=one.args.precision,
            engine=one.args.engine,
            min_replicas=None,
            max_replicas=None,
            replicas=await _vitals(one.handle, wanted, deadline),
            num_wanted=wanted,
        )

    async def _loaded_status(
        self, state: ModelState, targets: Targets, deadline: Deadline
    ) -> ModelStatus:
        spec = state.spec
        loaded = self._models.routes.loaded(spec.kind).get(state.id)
        wanted = targets.get((app_name(state), replica_name(spec.kind)))
        return ModelStatus(
            id=state.id,
            kind=spec.kind,
            device=spec.device,
            precision=spec.precision,
            engine=spec.engine,
            min_replicas=spec.min_replicas,
            max_replicas=spec.max_replicas,
            # An adapter has its base's replicas, which are shown there.
            replicas=()
            if loaded is None or spec.base
            else await _vitals(loaded.handle, wanted, deadline),
            num_wanted=wanted,
            state=state,
        )


async def _vitals(
    handle: DeploymentHandle[Any], num_wanted: int | None, deadline: Deadline
) -> tuple[ReplicaVitals, ...]:
    """Return what each replica says of itself, none where they do not answer."""
    if num_wanted and not await knows_replicas(handle, LEARN_S):
        return ()
    try:
        return tuple(await call_all(handle, "vitals", deadline))
    except RagError:
        return ()
