"""The library's continuous batching, one step at a time and only when it is told."""

from typing import Any

import torch
from transformers import ContinuousBatchingConfig
from transformers.generation.continuous_batching.continuous_api import OutputRouter
from transformers.generation.continuous_batching.requests import GenerationOutput

from deployments.engines.generation.transformers.batching import Batcher
from deployments.engines.generation.transformers.sampling import SamplingProcessor


class Collector(OutputRouter):
    """Keeps what a step brought until it is taken."""

    def __init__(self) -> None:
        super().__init__()
        self._outputs: list[GenerationOutput] = []

    def deliver(self, output: GenerationOutput) -> None:
        """Keep one output."""
        self._outputs.append(output)

    def deliver_batch(self, outputs: list[GenerationOutput]) -> None:
        """Keep the outputs of a step."""
        self._outputs += outputs

    def take(self) -> list[GenerationOutput]:
        """Return what was kept, and keep it no longer."""
        outputs, self._outputs = self._outputs, []
        return outputs


class SteppedBatcher(Batcher):
    """The batcher without a thread of its own: ranks must take their steps together."""

    def __init__(
        self, model: Any, config: ContinuousBatchingConfig, sampling: SamplingProcessor
    ) -> None:
        self.collector = Collector()
        super().__init__(model, self.collector, config, sampling)
        self.batch_processor = self._create_batch_processor()
        self.current_batch = 0

    @torch.inference_mode()
    def step(self) -> list[GenerationOutput]:
        """Compute one step, where there is something to compute, and return what it brought."""
        processor = self.batch_processor
        assert processor is not None
        with self._prefixes.step(processor.cache):
            if processor.prepare_next_batch():
                self._generation_step()
                self.current_batch += 1
                processor.update_batch()
        return self.collector.take()
