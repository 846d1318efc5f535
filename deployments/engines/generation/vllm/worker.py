"""What vLLM computes on a processor, mended: what LoRA adapters add to a linear layer.

Of its own two products per layer (0.32), the rows without an adapter get what the last adapter
adds, since they are marked with -1 and -1 is used as an index (vllm-project/vllm pull request
48421); and both copy the adapter's weights once for every row.
"""

from typing import Any

import torch
from torch.nn.functional import linear
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms import current_platform
from vllm.v1.worker.cpu_worker import CPUWorker

Rows = torch.Tensor | slice


class RowsOfAdapters(PunicaWrapperCPU):  # type: ignore[misc]
    """Adds to each adapter's rows what it adds, and to the others nothing."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Begin without rows."""
        super().__init__(*args, **options)
        self._rows: list[tuple[int, Rows]] = []

    def update_metadata(self, *args: Any, **options: Any) -> None:
        """Note which rows of the coming step are whose, by the adapter's place."""
        super().update_metadata(*args, **options)
        places = self.token_lora_indices
        found = [int(place) for place in places.unique()]
        if len(found) == 1 and found[0] >= 0:
            self._rows = [(found[0], slice(None))]
        else:
            self._rows = [(one, (places == one).nonzero()[:, 0]) for one in found if one >= 0]

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **_: Any,
    ) -> None:
        """Add to y float[rows, outputs] the updates of x float[rows, inputs], in place.

        Args:
            y: the layer's own products.
            x: the layer's input.
            lora_a_stacked: for each slice of the outputs, float[places, 1, rank, inputs].
            lora_b_stacked: for each slice of the outputs, float[places, 1, slice, rank].
            scale: multiplies what is added.
            output_slices: how many outputs each slice has.
        """
        for place, rows in self._rows:
            inputs, begin = x[rows], 0
            for downs, ups, size in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
                down, up = downs[place, 0], ups[place, 0]
                added = linear(linear(inputs, down), up) * scale
                y[rows, begin : begin + size] += added
                begin += size


class AdapterWorker(CPUWorker):  # type: ignore[misc]
    """A worker on a processor whose model may have adapters."""

    def load_model(self, *args: Any, **options: Any) -> None:
        """Load the model, whose layers then use our products."""
        ours = f"{RowsOfAdapters.__module__}.{RowsOfAdapters.__name__}"
        current_platform.get_punica_wrapper = lambda: ours
        super().load_model(*args, **options)
