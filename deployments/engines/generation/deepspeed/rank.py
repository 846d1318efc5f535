"""One rank: a part of the model, its part of every request's cache, and one step at a time.

It knows neither who its process is started by nor who the other ranks are; DeepSpeed does.
"""

import os

import torch
from transformers.generation.continuous_batching.requests import GenerationOutput, RequestStatus

from deployments.config import GeneratorArgs
from deployments.engines.generation.base import EngineRequest
from deployments.engines.generation.deepspeed.model import join, load_part
from deployments.engines.generation.deepspeed.ranks import (
    ModelFacts,
    Orders,
    Outcome,
    Progress,
)
from deployments.engines.generation.deepspeed.sampling import AgreedSampling
from deployments.engines.generation.deepspeed.stepping import SteppedBatcher
from deployments.engines.generation.transformers.batching import PAGE_SIZE, batching_config
from deployments.engines.generation.transformers.grammar import GrammarCompiler
from deployments.engines.generation.transformers.sampling import Sampler
from deployments.engines.generation.transformers.usage import cache_usage
from deployments.types.seats import Seat


class Rank:
    """Loads in the constructor. All methods must be called from the thread that built it."""

    def __init__(self, args: GeneratorArgs, seat: Seat) -> None:
        cores = len(os.sched_getaffinity(0))
        torch.set_num_threads(args.num_threads or max(1, cores // seat.num_local))
        join(seat)
        self._loaded = load_part(args, seat)
        self._is_first = seat.rank == 0
        config = batching_config(args.max_batch_tokens, args.kv_cache_tokens, PAGE_SIZE)
        sampling = AgreedSampling(seat.rank, seat.size)
        self._batcher = SteppedBatcher(self._loaded.model, config, sampling)
        self._grammars: GrammarCompiler | None = None
        if self._is_first:
            self._grammars = GrammarCompiler(
                self._loaded.tokenizer, self._loaded.vocab_size, self._loaded.eos_token_ids
            )
        self._samplers: dict[str, Sampler] = {}
        self._num_told: dict[str, int] = {}

    @property
    def facts(self) -> ModelFacts:
        """Return what the engine has to know of the model."""
        processor = self._batcher.batch_processor
        assert processor is not None
        return ModelFacts(
            vocab_size=self._loaded.vocab_size,
            max_positions=self._loaded.max_positions,
            eos_token_ids=self._loaded.eos_token_ids,
            num_pages=int(processor.cache.num_sectors),
        )

    def step(self, orders: Orders) -> Outcome | None:
        """Take the orders and compute one step; the first rank returns what it brought."""
        for request in orders.joins:
            self._join(request)
        for id_ in orders.cancels:
            self._batcher.cancel(id_)
            self._drop(id_)
        if orders.is_forgetting:
            self._batcher.forget([*self._samplers], _nobody_waits)
        outputs = [one for one in self._batcher.step() if one.request_id in self._samplers]
        progress = tuple(self._progress(output) for output in outputs)
        return self._outcome(progress) if self._is_first else None

    def _join(self, request: EngineRequest) -> None:
        sampling = request.sampling
        assert sampling.max_tokens is not None, "the replica sets max_tokens"
        matcher = None
        if sampling.grammar is not None and self._grammars is not None:
            matcher = self._grammars.matcher(sampling.grammar)
        sampler = Sampler(sampling, request.token_ids, matcher)
        self._samplers[request.id] = sampler
        self._num_told[request.id] = 0
        self._batcher.submit(
            request.id,
            request.token_ids,
            sampling.max_tokens,
            self._loaded.eos_token_ids,
            sampler,
            is_kept=request.is_kept,
        )

    def _drop(self, id_: str) -> None:
        self._samplers.pop(id_, None)
        self._num_told.pop(id_, None)

    def _outcome(self, progress: tuple[Progress, ...]) -> Outcome:
        processor = self._batcher.batch_processor
        assert processor is not None
        return Outcome(
            progress=progress,
            num_running=len(processor.scheduler.active_requests),
            is_idle=not processor.has_pending_requests(),
            kv_cache_usage=cache_usage(processor.cache),
        )

    def _progress(self, output: GenerationOutput) -> Progress:
        """Return what is new of a request; every rank must take note of its end in this step."""
        id_ = output.request_id
        start = self._num_told[id_]
        self._num_told[id_] = len(output.generated_tokens)
        progress = Progress(
            id=id_,
            tokens=tuple(output.generated_tokens[start:]),
            logprobs=tuple(self._samplers[id_].logprobs[start:]),
            is_failed=output.status == RequestStatus.FAILED,
        )
        if output.status in (RequestStatus.FINISHED, RequestStatus.FAILED):
            self._batcher.end(id_)
            self._drop(id_)
        return progress


def _nobody_waits() -> None:
    """Tell nobody that the cache is empty: the outcome of the step does."""
