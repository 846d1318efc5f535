"""What a load may ask for here: engines that are installed, devices that Ray has, precisions.

The engines' registries and the bounds in ``deployments/config/`` are asked, so an engine that is
added there can be loaded. Every refusal names what there is.
"""

import re
from collections.abc import Mapping
from typing import Any, get_args

from deployments.engines.embedding import registry as embedding
from deployments.engines.generation import registry as generation
from deployments.engines.reranking import registry as reranking
from deployments.errors import InvalidRequest
from deployments.types import LoadOrder, ModelKind
from graphs.model_app import ARGS

ENGINES: Mapping[ModelKind, Mapping[str, str]] = {
    "generation": generation.ENGINES,
    "embedding": embedding.ENGINES,
    "reranking": reranking.ENGINES,
}
PARALLEL_ENGINES = frozenset({"vllm", "deepspeed"})
"""Engines that split one model over several processes."""

ADAPTER_ENGINES = frozenset({"transformers", "vllm", "fake"})
"""Engines that put an adapter on a base model."""

DEFAULT_ENGINE = "transformers"
DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]{1,2})?")


def engine_of(order: LoadOrder, kind: ModelKind) -> str:
    """Return the engine that loads a model; raises InvalidRequest where it cannot."""
    engine = order.engine or DEFAULT_ENGINE
    known = [name for name in ENGINES[kind] if name in _choices(kind, "engine")]
    here = [name for name in known if kind != "generation" or generation.is_installed(name)]
    if engine not in here:
        raise refused(f"no such {kind} engine is installed; there are: {', '.join(here)}", "engine")
    if order.tensor_parallel > 1 and engine not in PARALLEL_ENGINES:
        message = f"the {engine} engine runs a model in one process: tensor_parallel must be 1"
        raise refused(message, "tensor_parallel")
    return engine


def check_serves_adapters(engine: str) -> None:
    """Raise InvalidRequest where an engine puts no adapter on its model."""
    if engine not in ADAPTER_ENGINES:
        able = ", ".join(sorted(ADAPTER_ENGINES))
        raise refused(f"the {engine} engine serves no adapters; those that do: {able}", "adapter")


def device_of(order: LoadOrder, num_gpus: int) -> str:
    """Return the device of a model, where Ray has `num_gpus`; raises InvalidRequest."""
    if not DEVICE.fullmatch(order.device):
        raise refused("a device is `cpu`, `cuda`, `cuda:<number>` or `auto`", "device")
    if order.device == "auto":
        return "cuda" if num_gpus else "cpu"
    kind, _, index = order.device.partition(":")
    if kind == "cuda" and int(index or 0) >= num_gpus:
        there = f"cuda:0 to cuda:{num_gpus - 1}, cpu" if num_gpus else "cpu"
        raise refused(f"this installation has no such GPU; there is: {there}", "device")
    if index and order.tensor_parallel > 1:
        message = "one GPU is named, tensor_parallel takes several: the device must be `cuda`"
        raise refused(message, "device")
    return order.device


def precision_of(order: LoadOrder, kind: ModelKind, device: str) -> str:
    """Return the precision of a model; raises InvalidRequest where the engine has none such."""
    able = [one for one in _choices(kind, "precision") if one != "int8" or device == "cpu"]
    if order.precision == "auto" and "auto" not in able:
        return able[0]
    if order.precision not in able:
        message = f"a {kind} model on {device} cannot compute in {order.precision}"
        raise refused(f"{message}; it can in: {', '.join(able)}", "precision")
    return order.precision


def _choices(kind: ModelKind, field: str) -> tuple[Any, ...]:
    return get_args(ARGS[kind].model_fields[field].annotation)


def refused(message: str, param: str) -> InvalidRequest:
    """Return the error for what cannot be had here; `param` asked for it."""
    error = InvalidRequest(message)
    error.param = param
    return error
