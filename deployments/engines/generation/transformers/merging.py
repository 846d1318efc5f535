"""Fewer, larger and steadier operations in a loaded decoder; what it computes stays the same.

With one token per request, a step is bound by reading the weights and by the cost of starting an
operation. Queries, keys and values come from the same input, as do gate and up projection: one
matrix product each instead of five. It does not know which family the model is of.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear

LONG_ROW = 1024
"""Inputs from which on a product of a single row is computed as one of two rows.

oneDNN's bf16 product gives each row the same bits however many rows there are, except for a single
long row, whose sum it splits. With that exception removed, what a request gets does not depend on
what else is in the batch, and a seed gives the same text on a busy engine as on an idle one. A
second row costs nothing: reading the weights does. Source: measured on AVX512-BF16, torch 2.13.
"""

GROUPS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


def project(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Return `linear(x, weight, bias)`, x [..., num_rows, in_features], as said at `LONG_ROW`."""
    if x.shape[-2] > 1 or x.shape[-1] < LONG_ROW or x.device.type != "cpu":
        return linear(x, weight, bias)
    return linear(x.expand(*x.shape[:-2], 2, -1), weight, bias)[..., :1, :]


class SteadyLinear(nn.Linear):
    """A linear layer whose rows do not depend on how many there are."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the projection of [..., num_rows, in_features]."""
        return project(input, self.weight, self.bias)


class FirstOfMerged(nn.Module):
    """Stands for the first of several projections: computes all, keeps the others' results."""

    def __init__(self, parts: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.cat([part.weight for part in parts]), requires_grad=False)
        self.bias = None
        if parts[0].bias is not None:
            biases = torch.cat([part.bias for part in parts])
            self.bias = nn.Parameter(biases, requires_grad=False)
        self.sizes = [part.out_features for part in parts]
        self.source: torch.Tensor | None = None
        self.results: tuple[torch.Tensor, ...] = ()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the first projection of `x`, [..., in_features]."""
        self.source = x
        self.results = torch.split_with_sizes(
            project(x, self.weight, self.bias), self.sizes, dim=-1
        )
        return self.results[0]


class RestOfMerged(nn.Module):
    """Stands for a later projection of the same input."""

    def __init__(self, first: FirstOfMerged, index: int) -> None:
        super().__init__()
        self._first = [first]  # in a list, so that the weights are not registered twice
        self._index = index

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return this projection of `x`, which the first one has just seen."""
        first = self._first[0]
        assert first.source is x, "the model projects another input than the one that was merged"
        return first.results[self._index]


def merge_linears(model: nn.Module) -> None:
    """Merge, in place, the projections that share their input, and steady the others."""
    for module in list(model.modules()):
        for names in GROUPS:
            parts: list[Any] = [getattr(module, name, None) for name in names]
            if all(type(part) is nn.Linear for part in parts) and _agree(parts):
                first = FirstOfMerged(parts)
                setattr(module, names[0], first)
                for index, name in enumerate(names[1:], start=1):
                    setattr(module, name, RestOfMerged(first, index))
        for child in module.children():
            if type(child) is nn.Linear and child.in_features >= LONG_ROW:
                child.__class__ = SteadyLinear


def _agree(parts: Sequence[nn.Linear]) -> bool:
    return len({(part.in_features, part.bias is None, part.weight.dtype) for part in parts}) == 1
