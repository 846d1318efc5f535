"""What a load asks for becomes what will run: every choice made, every file checked."""

import dataclasses
from functools import cache
from pathlib import Path

from deployments.config import ModelsArgs
from deployments.engines.inspection.files import ModelFiles, inspect
from deployments.engines.inspection.hub import (
    HUB,
    Offer,
    Unreachable,
    ask,
    check_hub,
    found,
    place,
)
from deployments.engines.inspection.source import find_source, is_trusted
from deployments.engines.weights import EMBEDDED
from deployments.types import LoadOrder, ModelKind, ModelSpec
from graphs.capabilities import device_of, engine_of, precision_of, refused
from graphs.fit import least_memory, memory_of
from graphs.model_app import args_of

FAKE = "fake"
FIRST_VERSION = "1"


def spec_of(order: LoadOrder, gpus: int, args: ModelsArgs) -> ModelSpec:
    """Return what will run, every choice made and every file checked. Blocks.

    Raises:
        InvalidRequest: the source is not allowed, or something cannot be had here.
        UnreadableModel: the model's files are damaged or incomplete.
    """
    device = device_of(order, gpus)
    files = None
    if order.engine != FAKE:
        offer = _awaited(order, args)
        if offer is not None:
            return _awaited_spec(order, offer, device)
        weights = find_source(order.source, args, digest=order.sha256)
        files = inspect(weights, is_trusted=is_trusted(weights, args))
    elif order.source or order.sha256:
        raise refused("the fake engine has no weights: leave the source out", "source")
    kind = order.kind or (files.kind if files else "generation")
    if files is not None and files.kind != kind:
        raise refused(f"the files are those of a model for {files.kind}", "kind")
    spec = dataclasses.replace(
        _chosen(order, kind, device),
        location=_location(order.source, files),
        num_bytes=files.num_bytes if files else 0,
    )
    if files is None:
        args_of(spec)
        return spec
    return dataclasses.replace(spec, memory_bytes=memory_of(spec, files, has_bf16=has_bf16()))


def _chosen(order: LoadOrder, kind: ModelKind, device: str) -> ModelSpec:
    """Return what will run, but for what only the files say."""
    return ModelSpec(
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
        options=dict(order.options),
    )


def _awaited(order: LoadOrder, args: ModelsArgs) -> Offer | None:
    """Return what a hub is still to give for a load; None: it is here, or of no hub.

    A hub that cannot be reached gives nothing new: what was downloaded before is taken.
    """
    if not order.source.startswith(HUB):
        return None
    model = order.source.removeprefix(HUB)
    check_hub(model, args)
    here = found(model)
    try:
        offer = ask(model, args)
    except Unreachable:
        if here is None:
            raise
        return None
    return None if here == place(offer.name, offer.commit) else offer


def _awaited_spec(order: LoadOrder, offer: Offer, device: str) -> ModelSpec:
    """Return what will run of files that are still to come; its memory is at least theirs."""
    if order.kind and order.kind != offer.kind:
        raise refused(f"the files are those of a model for {offer.kind}", "kind")
    spec = _chosen(order, offer.kind, device)
    args_of(spec)
    weights = offer.weights_bytes
    return dataclasses.replace(spec, num_bytes=weights, memory_bytes=least_memory(spec, weights))


def check_files(spec: ModelSpec, args: ModelsArgs) -> None:
    """Check again, before replicas start, that a model's files are allowed and what they were.

    The configuration and the files may have changed since it was loaded. What a hub gave is not
    asked for again: the hub need not be reachable. Blocks.

    Raises:
        InvalidRequest: the source is not allowed any more, or leads elsewhere.
        UnreadableModel: the files are damaged, or others.
    """
    if spec.engine == FAKE or spec.source.startswith(HUB):
        return
    weights = find_source(spec.source, args, digest=spec.sha256)
    files = inspect(weights, is_trusted=is_trusted(weights, args))
    if _location(spec.source, files) != spec.location:
        raise refused("the source leads elsewhere since the model was loaded", "source")


def order_of(spec: ModelSpec) -> LoadOrder:
    """Return the order that a model was loaded with, what was left open then being chosen now."""
    return LoadOrder(
        name=spec.name,
        version=spec.version,
        source=spec.source,
        sha256=spec.sha256,
        kind=spec.kind,
        engine=spec.engine,
        device=spec.device,
        precision=spec.precision,
        min_replicas=spec.min_replicas,
        max_replicas=spec.max_replicas,
        tensor_parallel=spec.tensor_parallel,
        adapter=spec.adapter,
        base=spec.base,
        options=spec.options,
    )


def _location(source: str, files: ModelFiles | None) -> str:
    """Return what a replica reads: a name where the package is looked up anew, else the path."""
    if files is None or source.startswith(EMBEDDED):
        return source
    return str(files.paths[0] if files.weights.gguf_file else files.weights.folder)


@cache
def has_bf16() -> bool:
    """Return whether this machine's processors multiply bf16, which `auto` then computes in."""
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
