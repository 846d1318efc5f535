"""Models that are loaded at run time: what is wanted of one, what it is now, and who is called so.

A model's id is `name@version`. Requests may say the name alone, or an alias of one or more models.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

ModelKind = Literal["generation", "embedding", "reranking"]
ModelPhase = Literal["loading", "ready", "failed", "unloading", "unloaded"]

LOADED: tuple[ModelPhase, ...] = ("loading", "ready")
"""Phases in which a model takes memory, or is about to."""

WHOLE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What runs: everything that a load asks for, with nothing left to choose.

    `source` is as the caller said it, `location` what a replica reads. `memory_bytes` is the
    estimate for one replica, `num_bytes` the size of the weights' files. `options` are further
    arguments of the engine.

    With a `base`, it is the LoRA adapter `adapter` over that model: its name is `base:adapter`, it
    has no replicas of its own, and the engine, device and precision are the base's.
    """

    name: str
    version: str
    kind: ModelKind
    engine: str
    source: str = ""
    sha256: str = ""
    device: str = "cpu"
    precision: str = "auto"
    min_replicas: int = 1
    max_replicas: int = 1
    tensor_parallel: int = 1
    adapter: str = ""
    base: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    location: str = ""
    num_bytes: int = 0
    memory_bytes: int = 0

    @property
    def id(self) -> str:
        """Return the model's id."""
        return f"{self.name}@{self.version}"

    @property
    def num_gpus(self) -> int:
        """Return how many GPUs a replica has."""
        return self.tensor_parallel if self.device.startswith("cuda") else 0


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far a load is; `bytes_read` None: nobody on that node looks."""

    bytes_read: int | None
    bytes_total: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """A model as the registry has it.

    `attempt` grows with every load, and names the application: what an earlier load left behind is
    never taken for a later one. `changed_at` is in seconds since 1970, as are the others;
    `retire_at` is when an unnamed version is unloaded; `used_at` is noted where models are evicted.
    """

    spec: ModelSpec
    phase: ModelPhase
    attempt: int
    changed_at: float
    error: str = ""
    ready_at: float | None = None
    retire_at: float | None = None
    used_at: float | None = None
    progress: LoadProgress | None = None

    @property
    def id(self) -> str:
        """Return the model's id."""
        return self.spec.id


@dataclass(frozen=True, slots=True)
class AliasTarget:
    """A model that an alias names, and its share of the requests."""

    model: str
    percent: int


@dataclass(frozen=True, slots=True)
class Alias:
    """A name for one model, or for several that share its requests; the percents make 100."""

    name: str
    targets: tuple[AliasTarget, ...]

    @property
    def main(self) -> str:
        """Return the target with the largest share."""
        return max(self.targets, key=lambda target: target.percent).model


@dataclass(frozen=True, slots=True)
class Registry:
    """All models and aliases at one moment; `revision` grows with every change of them."""

    revision: int
    models: Mapping[str, ModelState]
    aliases: Mapping[str, Alias]


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchOrder:
    """A change of an alias: all requests go to a model, or a share of them.

    `drain_s` None: as long as the configuration says.
    """

    alias: str
    to: str
    canary_percent: int = WHOLE
    drain_s: float | None = None


@dataclass(frozen=True, slots=True)
class GpuVitals:
    """One GPU now, as NVML says."""

    index: int
    name: str
    utilisation: float
    memory_used_bytes: int
    memory_total_bytes: int


@dataclass(frozen=True, slots=True)
class NodeVitals:
    """One machine now; `cpu` is the share of all its cores that work."""

    host: str
    num_cpus: int
    cpu: float
    memory_used_bytes: int
    memory_total_bytes: int
    gpus: tuple[GpuVitals, ...] = ()


@dataclass(frozen=True, slots=True)
class ReplicaVitals:
    """One replica now: its process, its machine, and what its engine says."""

    pid: int
    memory_bytes: int
    node: NodeVitals
    num_running: int
    num_queued: int
    tokens_per_s: float
    kv_cache_usage: float


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A model of the registry, or of the configuration, with its replicas.

    `num_wanted` is how many replicas Serve wants now, None where it does not say. `state` is None
    for the models of the configuration.
    """

    id: str
    kind: ModelKind
    device: str
    precision: str
    engine: str
    min_replicas: int | None
    max_replicas: int | None
    replicas: tuple[ReplicaVitals, ...]
    num_wanted: int | None = None
    state: ModelState | None = None


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """Everything that runs models, now."""

    models: tuple[ModelStatus, ...]
    aliases: tuple[Alias, ...]
    nodes: tuple[NodeVitals, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOrder:
    """What a load asks for; None lets the model's files, or the installation, say.

    With an `adapter`, the name is `base:adapter`, and `base` the model as the caller named it.
    """

    name: str
    version: str
    source: str = ""
    sha256: str = ""
    kind: ModelKind | None = None
    engine: str | None = None
    device: str = "auto"
    precision: str = "auto"
    min_replicas: int = 1
    max_replicas: int = 1
    tensor_parallel: int = 1
    adapter: str = ""
    base: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Return the id that the model will have."""
        return f"{self.name}@{self.version}"
