"""The library's generation loop in a thread of ours, and the way of its tokens to asyncio.

It owns everything that touches the model. Requests go in through the library's queues; tokens come
out as one call into the event loop per step.
"""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching.cache import group_layers_by_attn_type
from transformers.generation.continuous_batching.continuous_api import (
    ContinuousBatchingManager,
    OutputRouter,
)
from transformers.generation.continuous_batching.requests import GenerationOutput, RequestStatus

from deployments.engines.generation.transformers import attention, parts
from deployments.engines.generation.transformers.layout import layout_of
from deployments.engines.generation.transformers.pages import adapter_of, keep_apart
from deployments.engines.generation.transformers.prefixes import Prefixes
from deployments.engines.generation.transformers.sampling import Sampler, SamplingProcessor

PAGE_SIZE = 256

Step = list[tuple[str, list[int], bool]]
"""What a step brought: request id, all its tokens so far, and whether the request failed."""


class StepRouter(OutputRouter):
    """Hands what the batching thread produces to one callback in the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_step: Callable[[Step], None]) -> None:
        super().__init__()
        self._loop = loop
        self._on_step = on_step

    def deliver(self, output: GenerationOutput) -> None:
        """Hand over one output."""
        self.deliver_batch([output])

    def deliver_batch(self, outputs: list[GenerationOutput]) -> None:
        """Hand over the outputs of a step with one wake-up of the event loop."""
        step = [
            (output.request_id, output.generated_tokens, output.status == RequestStatus.FAILED)
            for output in outputs
        ]
        self._loop.call_soon_threadsafe(self._on_step, step)


class Batcher(ContinuousBatchingManager):
    """The library's manager, run by a thread of ours, with our attention and router."""

    def __init__(
        self,
        model: Any,
        router: OutputRouter,
        config: ContinuousBatchingConfig,
        sampling: SamplingProcessor | None = None,
    ) -> None:
        greedy = GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False, eos_token_id=-1
        )
        super().__init__(model, greedy, config)
        self.output_router = router
        self._sampling = self.logit_processor = sampling or SamplingProcessor()
        self._prefixes = Prefixes()
        self.adapters: dict[int, Mapping[nn.Module, parts.Update]] = {}

    def switch_to_cb_friendly_attn(self, model: Any, auto_switch_to_flash: bool = True) -> None:
        """Take our attention where the model attends to everything; else the library's SDPA."""
        kinds = group_layers_by_attn_type(model.config.get_text_config())
        ours = set(kinds) == {"full_attention"}
        model.set_attn_implementation(attention.NAME if ours else "sdpa")

    def submit(
        self,
        slot: str,
        token_ids: Sequence[int],
        max_tokens: int,
        eos_token_ids: frozenset[int],
        sampler: Sampler,
        *,
        is_kept: bool,
    ) -> None:
        """Queue a request under a name that was never used before; see `EngineRequest`."""
        if not is_kept:
            self._prefixes.pass_by(slot)
        if sampler.is_needed:
            self._sampling.add(slot, sampler)
        self.add_request(
            list(token_ids),
            slot,
            max_new_tokens=max_tokens,
            streaming=True,
            eos_token_id=list(eos_token_ids),
        )

    def cancel(self, slot: str) -> None:
        """Free what a request holds, at the next step; harmless when it has ended."""
        self.cancel_request(slot)
        self.end(slot)

    def end(self, slot: str) -> None:
        """Take note that a request is over, of itself or because the library was told so."""
        self._sampling.remove(slot)
        self._prefixes.end(slot)

    def forget(self, slots: Iterable[str], when_done: Callable[[], None]) -> None:
        """Keep nothing of any request so far; `slots` are those that run. See `Prefixes.forget`."""
        self._prefixes.forget(slots, when_done)
        self._wake_up_loop.set()

    def run(self) -> None:
        """Generate in the calling thread until the manager is stopped."""
        self._generation_thread: Any = threading.current_thread()
        self._run_generation_loop()

    def _create_batch_processor(self) -> Any:
        processor = super()._create_batch_processor()
        keep_apart(processor.cache)
        return processor

    def _generation_loop_body(self, batch_processor: Any, bootstrapping: bool) -> bool:
        with self._prefixes.step(batch_processor.cache):
            return bool(super()._generation_loop_body(batch_processor, bootstrapping))

    def _generation_step(self) -> None:
        processor = self.batch_processor
        assert processor is not None
        allocator = processor.cache.cache_allocators.get("full_attention")
        inputs: Any = processor.inputs_and_outputs
        with torch.inference_mode():
            parts.step.set(self._parts(inputs.requests_in_batch) if self.adapters else ())
            if self.model.config._attn_implementation == attention.NAME:
                layout = layout_of(inputs.requests_in_batch, allocator, self.model.device)
                attention.batch.set(layout)
            super()._generation_step()

    def _parts(self, requests: Sequence[Any]) -> tuple[parts.Part, ...]:
        """Return the rows of each adapter in a batch that the library has just prepared."""
        rows: dict[int, list[range]] = defaultdict(list)
        start = 0
        for request in requests:
            end = start + request.query_length
            adapter = adapter_of(request.state.request_id)
            if adapter is not None:
                rows[adapter].append(range(start, end))
            start = end
        found = ((self.adapters.get(one), ranges) for one, ranges in rows.items())
        return tuple(
            parts.Part(updates, _rows(ranges, self.model.device))
            for updates, ranges in found
            if updates is not None  # nobody waits for a request whose adapter has been freed
        )


def _rows(ranges: Sequence[range], device: torch.device) -> slice | torch.Tensor:
    """Return the places in all ranges, as a slice where there is no gap between them."""
    first, last = ranges[0].start, ranges[-1].stop
    if sum(map(len, ranges)) == last - first:
        return slice(first, last)
    return torch.tensor([row for one in ranges for row in one], device=device)


def batching_config(
    max_batch_tokens: int, kv_cache_tokens: int, page_size: int
) -> ContinuousBatchingConfig:
    """Return the library's settings; all that needs tokens before they are known is off."""
    return ContinuousBatchingConfig(
        page_size=page_size,
        num_blocks=-(-kv_cache_tokens // page_size),
        max_batch_tokens=max_batch_tokens,
        max_requests_per_batch=min(max_batch_tokens, 128),
        max_memory_percent=0.9,
        use_async_batching=False,
        use_cuda_graph=False,
        auto_switch_to_flash=False,
    )
