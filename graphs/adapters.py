"""LoRA adapters as models of the registry: a row that names its base, without an application.

Whoever sends a request to a replica sends along where its adapter lies, so the replicas that hold
an adapter are those that were asked for it: new ones, and those that come back, need no telling.
"""

import dataclasses
import hmac

from deployments.config import GeneratorArgs, ModelsArgs
from deployments.engines.inspection.adapters import inspect_adapter
from deployments.engines.inspection.source import find_source, is_trusted
from deployments.engines.weights import sha256
from deployments.errors import InsufficientResources, InvalidRequest, UnreadableModel
from deployments.types import Adapter, LoadOrder, ModelSpec, ModelState
from graphs.capabilities import check_serves_adapters, refused

FIRST_VERSION = "1"
SEPARATOR = ":"


def adapter_spec(order: LoadOrder, base: ModelSpec, args: ModelsArgs, free_bytes: int) -> ModelSpec:
    """Return what will be served, every file checked. Blocks.

    Args:
        order: what was asked for.
        base: the model that the adapter is over.
        args: what may be loaded.
        free_bytes: this machine's free memory.

    Raises:
        InvalidRequest: the source is not allowed, or the base's engine serves no adapters.
        UnreadableModel: the files are damaged, or of a form that is not served.
        InsufficientResources: it does not fit.
    """
    check_serves_adapters(base.engine)
    try:
        source = find_source(order.adapter, args)
    except InvalidRequest as error:
        error.param = "adapter"
        raise
    if source.gguf_file is not None:
        raise refused("an adapter is a folder as PEFT saves it", "adapter")
    files = inspect_adapter(source.folder, is_trusted=is_trusted(source, args))
    if order.sha256 and not hmac.compare_digest(sha256(files.path), order.sha256):
        raise UnreadableModel("the adapter has another SHA-256 than `sha256` says")
    if files.num_bytes * max(base.min_replicas, 1) > free_bytes:
        raise InsufficientResources(
            f"the adapter has {files.num_bytes} bytes for each replica; {free_bytes} are free"
        )
    return dataclasses.replace(
        base,
        name=order.name,
        version=order.version or FIRST_VERSION,
        source="",
        sha256=order.sha256,
        adapter=order.adapter,
        base=base.id if base.version else base.name,
        options={},
        location=str(source.folder),
        num_bytes=files.num_bytes,
        memory_bytes=0,
    )


def own_spec(args: GeneratorArgs) -> ModelSpec:
    """Return the configuration's generation model as the base of adapters; it has no version."""
    return ModelSpec(
        name=args.model,
        version="",
        kind="generation",
        engine=args.engine,
        device=args.device,
        precision=args.precision,
        tensor_parallel=args.tensor_parallel,
    )


def sent(state: ModelState) -> Adapter:
    """Return what a request says of its adapter to the replica; every load has another id."""
    return Adapter(f"{state.id}#{state.attempt}", state.spec.location)


def names_of(state: ModelState) -> tuple[str, ...]:
    """Return an adapter's names without its version: after its base's name, and its base's id."""
    if not state.spec.base:
        return ()
    adapter = state.spec.name.partition(SEPARATOR)[2]
    return (state.spec.name, f"{state.spec.base}{SEPARATOR}{adapter}")
