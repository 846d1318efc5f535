"""The engine over transformers' continuous batching: requests in, deltas out."""

import asyncio
import contextlib
import itertools
import os
import threading
from collections.abc import AsyncIterator

import torch

from deployments.config import GeneratorArgs
from deployments.engines.generation.admission import check_length, check_queue, check_tokens
from deployments.engines.generation.base import EngineRequest
from deployments.engines.generation.rate import TokenRate
from deployments.engines.generation.text import TextStream
from deployments.engines.generation.transformers.adapters import Adapters
from deployments.engines.generation.transformers.batching import (
    PAGE_SIZE,
    Batcher,
    Step,
    StepRouter,
    batching_config,
)
from deployments.engines.generation.transformers.chat import TextCodec
from deployments.engines.generation.transformers.grammar import GrammarCompiler
from deployments.engines.generation.transformers.loading import LoadedModel, load
from deployments.engines.generation.transformers.output import Output
from deployments.engines.generation.transformers.own_text import OwnText
from deployments.engines.generation.transformers.pages import slot_name
from deployments.engines.generation.transformers.sampling import Sampler
from deployments.engines.generation.transformers.usage import cache_usage
from deployments.errors import EngineFailed
from deployments.types import Delta, EngineStats, Finished

FORGET_PERIOD_S = 0.5
"""How often whoever waits for the cache to be emptied looks whether the thread lives."""

Parts = tuple[LoadedModel, TextCodec, GrammarCompiler, Batcher]


class TransformersEngine(OwnText):
    """Generates with a local model on CPU or GPU; see `GenerationEngine` for the contract."""

    def __init__(self, args: GeneratorArgs) -> None:
        self._args = args
        self._outputs: dict[str, Output] = {}
        self._rate = TokenRate()
        self._slots = itertools.count()
        self._is_failed = False
        self._batcher: Batcher | None = None
        self._thread: threading.Thread | None = None

    @property
    def context_length(self) -> int:
        """Return the most tokens of prompt and output: the smallest of three bounds."""
        args = self._args
        return min(args.context_length, args.kv_cache_tokens, self._loaded.max_positions)

    async def start(self) -> None:
        """Load the model in the thread that will run it, and wait until it is ready.

        Raises:
            EngineFailed: the model cannot be loaded.
        """
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[Parts] = loop.create_future()
        self._thread = threading.Thread(
            target=self._run, args=(loop, ready), name="generation", daemon=True
        )
        self._thread.start()
        self._loaded, self._codec, self._grammars, self._batcher = await ready
        self._adapters = Adapters(self._loaded.model, self._batcher.adapters)

    def _run(self, loop: asyncio.AbstractEventLoop, ready: asyncio.Future[Parts]) -> None:
        """Load and generate in one thread, so that the process has one OpenMP pool.

        Two pools (loading in one thread, generating in another) fight for the cores.
        """
        try:
            # Always: Ray sets OMP_NUM_THREADS to a replica's logical CPUs, which is 1 by default.
            torch.set_num_threads(self._args.num_threads or len(os.sched_getaffinity(0)))
            loaded = load(self._args)
            codec = TextCodec(loaded.tokenizer)
            grammars = GrammarCompiler(loaded.tokenizer, loaded.vocab_size, loaded.eos_token_ids)
            config = batching_config(
                self._args.max_batch_tokens, self._args.kv_cache_tokens, PAGE_SIZE
            )
            batcher = Batcher(loaded.model, StepRouter(loop, self._on_step), config)
        except Exception as error:  # any failure to load is told to whoever waits in `start`
            failed = error if isinstance(error, EngineFailed) else EngineFailed("cannot load model")
            failed.__cause__ = None if failed is error else error
            loop.call_soon_threadsafe(ready.set_exception, failed)
            return
        loop.call_soon_threadsafe(ready.set_result, (loaded, codec, grammars, batcher))
        try:
            batcher.run()
        finally:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._on_end)

    def _on_step(self, step: Step) -> None:
        num_new = 0
        for slot, tokens, is_failed in step:
            output = self._outputs.get(slot)
            if output is not None:
                num_new += output.put(tokens, is_failed=is_failed)
            elif self._batcher is not None:  # its reader went away before it was in the queue
                self._batcher.cancel(slot)
        self._rate.add(num_new)

    def _on_end(self) -> None:
        """Fail everything that waits: the generation thread has ended."""
        self._is_failed = True
        for output in self._outputs.values():
            output.fail()

    async def attach(self, adapter: str, location: str) -> None:
        """Read an adapter and fit it to the model, once."""
        self.check_health()
        await self._adapters.attach(adapter, location)

    async def detach(self, adapter: str) -> None:
        """Free an adapter once its requests have ended."""
        self._adapters.detach(adapter)

    async def generate(self, request: EngineRequest) -> AsyncIterator[Delta | Finished]:
        """Yield deltas as tokens come, then `Finished`; closing the iterator frees the slot."""
        max_tokens = self._admit(request)
        sampler = self._sampler(request)
        batcher = self._running()
        with self._adapters.used(request.adapter) as adapter:
            # Never a request's own id: a late cancel of its namesake would hit it.
            slot = slot_name(next(self._slots), adapter)
            output = self._outputs[slot] = Output(
                text=TextStream(self._codec.decode, request.sampling.stop),
                eos_token_ids=self._loaded.eos_token_ids,
                max_tokens=max_tokens,
                logprobs=sampler.logprobs,
                token_bytes=self._grammars.token_bytes,
            )
            try:
                batcher.submit(
                    slot,
                    request.token_ids,
                    max_tokens,
                    output.eos_token_ids,
                    sampler,
                    is_kept=request.is_kept,
                )
                while not output.is_finished:
                    await output.wake.wait()
                    for event in output.take():
                        yield event
            finally:
                del self._outputs[slot]
                batcher.cancel(slot)

    def _sampler(self, request: EngineRequest) -> Sampler:
        grammar = request.sampling.grammar
        matcher = None if grammar is None else self._grammars.matcher(grammar)
        return Sampler(request.sampling, request.token_ids, matcher)

    def _admit(self, request: EngineRequest) -> int:
        """Return how many tokens the request may have."""
        self.check_health()
        self.check(request.sampling)
        check_tokens(request.token_ids, self._loaded.vocab_size, "prompt")
        max_tokens = check_length(request, self.context_length)
        check_queue(self.stats().num_queued, self._args.max_queued_requests)
        return max_tokens

    async def forget(self) -> None:
        """Keep nothing of any request so far; of those that run now, nothing when they have ended.

        Raises:
            EngineFailed: the generation thread has ended.
        """
        if self._batcher is None:
            return  # nothing was loaded, or it was freed
        self._codec.forget()
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def tell() -> None:
            loop.call_soon_threadsafe(done.set)

        self._batcher.forget([*self._outputs], tell)
        while not done.is_set():
            self.check_health()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(done.wait(), FORGET_PERIOD_S)

    def stats(self) -> EngineStats:
        """Return what the engine is doing now; the rate covers the last few seconds."""
        processor = self._batcher.batch_processor if self._batcher else None
        if processor is None:
            return EngineStats()
        num_running = min(len(processor.scheduler.active_requests), len(self._outputs))
        return EngineStats(
            num_running=num_running,
            num_queued=len(self._outputs) - num_running,
            tokens_per_s=self._rate.tokens_per_s,
            kv_cache_usage=cache_usage(processor.cache),
        )

    def _running(self) -> Batcher:
        if self._batcher is None:
            raise EngineFailed("the generation engine is not running")
        return self._batcher

    def check_health(self) -> None:
        """Raise EngineFailed when the generation thread is gone."""
        if self._is_failed or self._thread is None or not self._thread.is_alive():
            raise EngineFailed("the generation engine is not running")

    async def stop(self) -> None:
        """End every request with EngineFailed and free the weights."""
        if self._batcher is not None and self._thread is not None and self._thread.is_alive():
            await asyncio.to_thread(self._batcher.stop, timeout=10.0, hard_stop=True)
        self._on_end()
        self._batcher = None
