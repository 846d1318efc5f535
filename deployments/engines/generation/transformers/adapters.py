"""LoRA adapters over a loaded decoder: read from files, fitted to its layers, kept while in use."""

import asyncio
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from deployments.engines.generation.admission import no_adapter, refused_adapter
from deployments.engines.generation.transformers.linears import Layer, Projection, layers_of
from deployments.engines.generation.transformers.parts import Update
from deployments.engines.inspection.adapters import Update as UpdateFiles
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


class Adapters:
    """The adapters of one engine, by id; used from its event loop.

    `numbered` is what the generation thread reads. Each reading of an adapter has a number of its
    own, which is never given again: by it pages of the cache are kept apart.
    """

    def __init__(self, model: nn.Module, numbered: MutableMapping[int, Updates]) -> None:
        self._model = model
        self._numbered = numbered
        self._numbers: dict[str, int] = {}
        self._count = itertools.count(1)
        self._users: Counter[int] = Counter()
        self._reading = asyncio.Lock()

    async def attach(self, adapter: str, location: str) -> None:
        """Read an adapter, unless it is there; see `GenerationEngine.attach`."""
        if adapter in self._numbers:
            return
        async with self._reading:
            if adapter not in self._numbers:
                updates = await asyncio.to_thread(read_adapter, location, self._model)
                number = next(self._count)
                self._numbered[number] = updates
                self._numbers[adapter] = number

    def detach(self, adapter: str) -> None:
        """Give an adapter up once its requests have ended; nothing happens if it is not there."""
        number = self._numbers.pop(adapter, None)
        if number is not None and not self._users[number]:
            del self._numbered[number]

    @contextmanager
    def used(self, adapter: str | None) -> Iterator[int | None]:
        """Keep an adapter for a request, and give its number; raises ModelNotFound."""
        if adapter is None:
            yield None
            return
        number = self._numbers.get(adapter)
        if number is None:
            raise no_adapter()
        self._users[number] += 1
        try:
            yield number
        finally:
            self._users[number] -= 1
            if not self._users[number]:
                del self._users[number]
                if self._numbers.get(adapter) != number:
                    del self._numbered[number]


def read_adapter(location: str, model: nn.Module) -> Updates:
    """Return an adapter's updates of a model, in its number type and on its device. Blocks.

    Raises:
        UnreadableModel: the files are damaged, or of a form that is not served.
        InvalidRequest: the adapter is one of another model.
    """
    files = inspect_adapter(Path(location), is_trusted=True)
    layers = layers_of(model)
    parts: dict[Projection, list[tuple[Layer, torch.Tensor, torch.Tensor]]] = defaultdict(list)
    with safe_open(files.path, framework="pt") as file:
        for update in files.updates:
            layer = _fitting(update, layers)
            name = f"base_model.model.{update.module}.lora_"
            down, up = (file.get_tensor(f"{name}{half}.weight").float() for half in "AB")
            parts[layer.product].append((layer, down, up * update.scale))
    return {product: _joined(product, found) for product, found in parts.items()}


def _fitting(update: UpdateFiles, layers: Mapping[str, Layer]) -> Layer:
    layer = layers.get(update.module)
    if layer is None:
        kinds = ", ".join(sorted({name.rpartition(".")[2] for name in layers}))
        message = f"the base has no layer {update.module} that an adapter can change"
        raise refused_adapter(f"{message}; it has layers of these names: {kinds}")
    theirs, ours = (update.out_features, update.in_features), (layer.size, layer.in_features)
    if theirs != ours:
        message = f"the adapter was made for another model: its {update.module} is {list(theirs)}"
        raise refused_adapter(f"{message}, the base's is {list(ours)}")
    return layer


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
