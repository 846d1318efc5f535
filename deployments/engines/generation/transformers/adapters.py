"""LoRA adapters over a loaded decoder: read from files and fitted to its layers."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, MutableMapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from deployments.engines.generation.adapters import AdapterLedger, check_fits
from deployments.engines.generation.transformers.linears import Layer, Projection, layers_of
from deployments.engines.generation.transformers.parts import Update
from deployments.engines.inspection.adapters import inspect_adapter

Updates = Mapping[nn.Module, Update]


class LowRank:
    """What an adapter adds to one product: `up(down(x))`, the scale being in `up`."""

    def __init__(self, down: torch.Tensor, up: torch.Tensor) -> None:
        """Take float[rank, in_features] and float[out_features, rank]."""
        self._down, self._up = (Projection([_linear(weight)]) for weight in (down, up))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return [num_rows, out_features]; a row's bits do not depend on the number of rows."""
        return self._up.project(self._down.project(x))


class Adapters(AdapterLedger):
    """The adapters of one engine; `numbered` is what the generation thread reads."""

    def __init__(self, model: nn.Module, numbered: MutableMapping[int, Updates]) -> None:
        super().__init__()
        self._model = model
        self._numbered = numbered

    async def _read(self, number: int, location: str) -> None:
        self._numbered[number] = await asyncio.to_thread(read_adapter, location, self._model)

    def _free(self, number: int) -> None:
        del self._numbered[number]


def read_adapter(location: str, model: nn.Module) -> Updates:
    """Return an adapter's updates of a model, in its number type and on its device. Blocks.

    Raises:
        UnreadableModel: the files are damaged, or of a form that is not served.
        InvalidRequest: the adapter is one of another model.
    """
    files = inspect_adapter(Path(location), is_trusted=True)
    layers = layers_of(model)
    check_fits(files.updates, {name: (one.in_features, one.size) for name, one in layers.items()})
    parts: dict[Projection, list[tuple[Layer, torch.Tensor, torch.Tensor]]] = defaultdict(list)
    with safe_open(files.path, framework="pt") as file:
        for update in files.updates:
            layer = layers[update.module]
            name = f"base_model.model.{update.module}.lora_"
            down, up = (file.get_tensor(f"{name}{half}.weight").float() for half in "AB")
            parts[layer.product].append((layer, down, up * update.scale))
    return {product: _joined(product, found) for product, found in parts.items()}


def _joined(product: Projection, found: list[tuple[Layer, torch.Tensor, torch.Tensor]]) -> LowRank:
    """Return one update for all layers in a product: downs stacked, ups side by side."""
    down = torch.cat([one for _, one, _ in found])
    up = torch.zeros(sum(product.sizes), len(down))
    column = 0
    for layer, _, one in found:
        rank = one.shape[1]
        up[layer.offset : layer.offset + layer.size, column : column + rank] = one
        column += rank
    return LowRank(down.to(product.device, product.dtype), up.to(product.device, product.dtype))


def _linear(weight: torch.Tensor) -> nn.Linear:
    out_features, in_features = weight.shape
    linear = nn.Linear(in_features, out_features, bias=False, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    return linear
