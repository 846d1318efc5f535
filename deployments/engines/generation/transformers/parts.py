"""Which rows of the batch that is computed now have an adapter, and what it adds to a layer.

It does not know where adapters come from (``adapters.py``), nor requests.
"""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import nn

Update = Callable[[torch.Tensor], torch.Tensor]
"""What an adapter adds to a layer's output: [num_rows, out_features] of [num_rows, in_features]."""


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one adapter in a batch, and its updates by layer."""

    updates: Mapping[nn.Module, Update]
    rows: slice | torch.Tensor

    def add_to(self, y: torch.Tensor, layer: nn.Module, x: torch.Tensor) -> None:
        """Add the adapter's share to a layer's output, in place.

        Args:
            y: [1, num_rows, out_features], the layer's output of all rows.
            layer: whose output it is.
            x: [1, num_rows, in_features], its input.
        """
        update = self.updates.get(layer)
        if update is None:
            return
        share = update(x[0, self.rows])
        if isinstance(self.rows, slice):
            y[0, self.rows].add_(share)
        else:
            y[0].index_add_(0, self.rows, share)


step: ContextVar[tuple[Part, ...]] = ContextVar("step", default=())
"""The parts of the batch that the generation thread computes now; no other thread has any."""
