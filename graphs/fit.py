"""Whether a model fits: what it needs beside what Ray's nodes and this machine have free.

Refusing at once is the point: Ray would let a replica that fits nowhere wait for ever.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from deployments.config import GeneratorArgs, ModelsArgs
from deployments.engines.inspection.files import ModelFiles
from deployments.errors import InsufficientResources
from deployments.types import ModelSpec
from graphs.model_app import GANG_ENGINES, RANK_CPUS, args_of

PROCESS_BYTES = {"generation": 700 << 20, "embedding": 450 << 20, "reranking": 450 << 20}
"""What a replica's process takes beside its weights and its cache of tokens, by the model's kind.

Source: 449 MiB are resident after Ray Serve, torch, transformers and our engine are imported. A
replica that generates, after its first answers, takes 700 MiB beside SmolLM2-135M: the tokenizer,
the grammar's tables, oneDNN's kernels, and the output layer, which is a second copy of the
embedding.
"""

WORKING_SHARE = 0.15
"""What computing takes beside the weights, as a share of them."""

BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "int8": 1.0, "int4": 0.5}
CGROUP_LIMIT, CGROUP_USE = (
    Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current")
)


@dataclass(frozen=True, slots=True)
class NodeRoom:
    """What is free on one of Ray's nodes."""

    num_cpus: float
    num_gpus: float
    memory_bytes: float


def memory_of(spec: ModelSpec, files: ModelFiles, *, has_bf16: bool) -> int:
    """Return an estimate of the bytes that one replica takes, the cache of its tokens included."""
    auto = 2.0 if has_bf16 or spec.num_gpus else 4.0
    width = BYTES.get(spec.precision, auto)
    cached = 0.0
    if spec.kind == "generation":
        args = args_of(spec)
        assert isinstance(args, GeneratorArgs)
        cached = args.kv_cache_tokens * files.kv_width * max(width, 2.0)
    weights = files.num_parameters * width
    return PROCESS_BYTES[spec.kind] + int(weights * (1 + WORKING_SHARE) + cached)


def least_memory(spec: ModelSpec, weights_bytes: int) -> int:
    """Return what one replica takes at least, whose files are not here yet to be looked at."""
    shrunk = BYTES.get(spec.precision, BYTES["int4"]) / BYTES["fp32"]
    return PROCESS_BYTES[spec.kind] + int(weights_bytes * min(1.0, shrunk))


def check_fit(
    spec: ModelSpec, args: ModelsArgs, nodes: Sequence[NodeRoom], free_bytes: int
) -> None:
    """Raise InsufficientResources unless every replica that has to run finds a place.

    Args:
        spec: what is to run.
        args: what each replica asks of Ray.
        nodes: what Ray has free, node by node.
        free_bytes: this machine's free memory, less what other loads are about to take.
    """
    wanted = max(spec.min_replicas, 1)
    needs = _needs(spec, args)
    places = sum(_replicas_on(node, needs) for node in nodes)
    if places < wanted:
        raise InsufficientResources(
            f"{spec.id} needs {_said(needs)} for each of {wanted} replicas, on one node each; "
            f"free are: {'; '.join(map(_said, nodes)) or 'no nodes'}"
        )
    if len(nodes) == 1 and not spec.num_gpus and spec.memory_bytes * wanted > free_bytes:
        raise InsufficientResources(
            f"{spec.id} needs {_gib(spec.memory_bytes * wanted)} of memory; "
            f"{_gib(free_bytes)} are free"
        )


def machine_free_bytes() -> int:
    """Return the memory that this machine, or the container on it, has left."""
    free = psutil.virtual_memory().available
    try:
        limit = int(CGROUP_LIMIT.read_text(encoding="ascii"))
        free = min(free, limit - int(CGROUP_USE.read_text(encoding="ascii")))
    except (OSError, ValueError):  # no container, or one without a limit
        pass
    return max(free, 0)


def rooms(
    total: Mapping[str, Mapping[str, float]], free: Mapping[str, Mapping[str, float]]
) -> list[NodeRoom]:
    """Return what is free on each node, of Ray's two tables by node."""
    return [
        NodeRoom(room.get("CPU", 0.0), room.get("GPU", 0.0), room.get("memory", 0.0))
        for node in total
        for room in (free.get(node, {}),)
    ]


def with_more(
    nodes: Sequence[NodeRoom],
    total: Sequence[NodeRoom],
    specs: Sequence[ModelSpec],
    args: ModelsArgs,
) -> list[NodeRoom]:
    """Return what nodes have free at the very most once models are gone, wherever they are.

    Args:
        nodes: what they have free now.
        total: all that they have, in the same order.
        specs: what would go.
        args: what each replica asks of Ray.
    """
    counts = [max(spec.min_replicas, 1) for spec in specs]
    needs = [_needs(spec, args) for spec in specs]
    pairs = list(zip(counts, needs, strict=True))
    more = NodeRoom(
        sum(count * need.num_cpus for count, need in pairs),
        sum(count * need.num_gpus for count, need in pairs),
        sum(count * need.memory_bytes for count, need in pairs),
    )
    return [
        NodeRoom(
            min(has.num_cpus + more.num_cpus, most.num_cpus),
            min(has.num_gpus + more.num_gpus, most.num_gpus),
            min(has.memory_bytes + more.memory_bytes, most.memory_bytes),
        )
        for has, most in zip(nodes, total, strict=True)
    ]


def without(
    nodes: Sequence[NodeRoom], specs: Sequence[ModelSpec], args: ModelsArgs
) -> list[NodeRoom]:
    """Return what nodes have left once each of some replicas has its place: the first that it fits.

    A replica that fits nowhere takes nothing.
    """
    left = list(nodes)
    for need in (_needs(spec, args) for spec in specs):
        place = next((i for i, node in enumerate(left) if _replicas_on(node, need)), None)
        if place is not None:
            node = left[place]
            left[place] = NodeRoom(
                node.num_cpus - need.num_cpus,
                node.num_gpus - need.num_gpus,
                node.memory_bytes - need.memory_bytes,
            )
    return left


def _needs(spec: ModelSpec, args: ModelsArgs) -> NodeRoom:
    """Return what one replica asks of Ray, its ranks included."""
    ranks = spec.tensor_parallel if spec.engine in GANG_ENGINES else 0
    num_cpus = args.replica_cpus + RANK_CPUS * ranks
    return NodeRoom(num_cpus, spec.num_gpus, spec.memory_bytes)


def _replicas_on(node: NodeRoom, needs: NodeRoom) -> int:
    pairs = (
        (node.num_cpus, needs.num_cpus),
        (node.num_gpus, needs.num_gpus),
        (node.memory_bytes, needs.memory_bytes),
    )
    return min(int((has + 1e-6) // need) for has, need in pairs if need > 0)


def _said(room: NodeRoom) -> str:
    gpus = f", {room.num_gpus:g} GPUs" if room.num_gpus else ""
    return f"{room.num_cpus:g} logical CPUs{gpus} and {_gib(room.memory_bytes)}"


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / (1 << 30):.2f} GiB"
