"""How models are, as the API shows it."""

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel

from deployments.types import (
    Alias,
    ClusterStatus,
    GpuVitals,
    ModelKind,
    ModelPhase,
    ModelState,
    ModelStatus,
    NodeVitals,
    ReplicaVitals,
)


class Progress(BaseModel):
    """How far a load is; `bytes_read` null: it runs on a machine that nobody looks at."""

    bytes_read: int | None
    bytes_total: int
    seconds: float


class ReplicaRange(BaseModel):
    """How many replicas there may be; null for what the configuration runs."""

    min: int | None
    max: int | None


class ModelInfo(BaseModel):
    """A model that was loaded at run time."""

    id: str
    object: Literal["model.state"]
    state: ModelPhase
    error: str | None
    kind: ModelKind
    source: str
    engine: str
    device: str
    precision: str
    replicas: ReplicaRange
    tensor_parallel: int
    adapter: str | None
    base: str | None
    memory_bytes: int
    progress: Progress | None
    changed_at: str
    ready_at: str | None
    unloads_at: str | None


class ReplicaInfo(BaseModel):
    """One replica now; an embedding or reranking model's queue is in tokens."""

    host: str
    pid: int
    memory_bytes: int
    requests_running: int
    queued: int
    tokens_per_s: float
    kv_cache_usage: float


class ModelReport(BaseModel):
    """A model with its replicas; `configured` ones are the configuration's.

    An adapter has those of its `base`, where they are shown.
    """

    id: str
    base: str | None
    kind: ModelKind
    state: ModelPhase | Literal["configured"]
    error: str | None
    engine: str
    device: str
    precision: str
    replicas: ReplicaRange
    replicas_wanted: int | None
    replicas_running: int
    requests_running: int
    queued: int
    tokens_per_s: float
    kv_cache_usage: float
    memory_bytes: int
    progress: Progress | None
    running: list[ReplicaInfo]


class AliasShare(BaseModel):
    """A model behind an alias, and its share of the requests."""

    model: str
    percent: int


class AliasInfo(BaseModel):
    """An alias."""

    alias: str
    object: Literal["model.alias"]
    targets: list[AliasShare]


class GpuInfo(BaseModel):
    """One GPU now."""

    index: int
    name: str
    utilisation: float
    memory_used_bytes: int
    memory_total_bytes: int


class NodeInfo(BaseModel):
    """One machine now; `cpu` and `utilisation` are shares of 1."""

    host: str
    num_cpus: int
    cpu: float
    memory_used_bytes: int
    memory_total_bytes: int
    gpus: list[GpuInfo]


class ModelsStatus(BaseModel):
    """Everything that runs models."""

    object: Literal["models.status"]
    models: list[ModelReport]
    aliases: list[AliasInfo]
    nodes: list[NodeInfo]


def info_of(state: ModelState) -> ModelInfo:
    """Return a model as the API shows it."""
    spec = state.spec
    return ModelInfo(
        id=state.id,
        object="model.state",
        state=state.phase,
        error=state.error or None,
        kind=spec.kind,
        source=spec.source,
        engine=spec.engine,
        device=spec.device,
        precision=spec.precision,
        replicas=ReplicaRange(min=spec.min_replicas, max=spec.max_replicas),
        tensor_parallel=spec.tensor_parallel,
        adapter=spec.adapter or None,
        base=spec.base or None,
        memory_bytes=spec.memory_bytes,
        progress=_progress(state),
        changed_at=_time(state.changed_at) or "",
        ready_at=_time(state.ready_at),
        unloads_at=_time(state.retire_at),
    )


def alias_of(alias: Alias) -> AliasInfo:
    """Return an alias as the API shows it."""
    targets = [AliasShare(model=one.model, percent=one.percent) for one in alias.targets]
    return AliasInfo(alias=alias.name, object="model.alias", targets=targets)


def status_of(status: ClusterStatus) -> ModelsStatus:
    """Return everything as the API shows it."""
    return ModelsStatus(
        object="models.status",
        models=[_report(one) for one in status.models],
        aliases=[alias_of(one) for one in status.aliases],
        nodes=[_node(one) for one in status.nodes],
    )


def _report(one: ModelStatus) -> ModelReport:
    replicas = one.replicas
    usage = [replica.kv_cache_usage for replica in replicas]
    return ModelReport(
        id=one.id,
        base=(one.state.spec.base or None) if one.state else None,
        kind=one.kind,
        state=one.state.phase if one.state else "configured",
        error=(one.state.error or None) if one.state else None,
        engine=one.engine,
        device=one.device,
        precision=one.precision,
        replicas=ReplicaRange(min=one.min_replicas, max=one.max_replicas),
        replicas_wanted=one.num_wanted,
        replicas_running=len(replicas),
        requests_running=sum(replica.num_running for replica in replicas),
        queued=sum(replica.num_queued for replica in replicas),
        tokens_per_s=sum(replica.tokens_per_s for replica in replicas),
        kv_cache_usage=max(usage, default=0.0),
        memory_bytes=sum(replica.memory_bytes for replica in replicas),
        progress=_progress(one.state) if one.state else None,
        running=[_replica(replica) for replica in replicas],
    )


def _replica(one: ReplicaVitals) -> ReplicaInfo:
    return ReplicaInfo(
        host=one.node.host,
        pid=one.pid,
        memory_bytes=one.memory_bytes,
        requests_running=one.num_running,
        queued=one.num_queued,
        tokens_per_s=one.tokens_per_s,
        kv_cache_usage=one.kv_cache_usage,
    )


def _node(one: NodeVitals) -> NodeInfo:
    return NodeInfo(
        host=one.host,
        num_cpus=one.num_cpus,
        cpu=one.cpu,
        memory_used_bytes=one.memory_used_bytes,
        memory_total_bytes=one.memory_total_bytes,
        gpus=[_gpu(gpu) for gpu in one.gpus],
    )


def _gpu(one: GpuVitals) -> GpuInfo:
    return GpuInfo(
        index=one.index,
        name=one.name,
        utilisation=one.utilisation,
        memory_used_bytes=one.memory_used_bytes,
        memory_total_bytes=one.memory_total_bytes,
    )


def _progress(state: ModelState) -> Progress | None:
    found = state.progress
    if found is None:
        return None
    return Progress(
        bytes_read=found.bytes_read, bytes_total=found.bytes_total, seconds=found.seconds
    )


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
