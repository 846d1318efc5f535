"""The engine over transformers' continuous batching: requests in, deltas out."""

import asyncio
import contextlib
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence

import torch

from deployments.config import GeneratorArgs
from deployments.engines.generation.base import EngineRequest
from deployments.engines.generation.text import TextStream
from deployments.engines.generation.transformers.batching import (
    Batcher,
    Step,
    StepRouter,
    batching_config,
)
from deployments.engines.generation.transformers.chat import TextCodec
from deployments.engines.generation.transformers.grammar import GrammarCompiler
from deployments.engines.generation.transformers.loading import LoadedModel, load
from deployments.engines.generation.transformers.output import Output
from deployments.engines.generation.transformers.sampling import Sampler
from deployments.errors import ContextTooLong, EngineFailed, InvalidRequest, Overloaded
from deployments.types import Delta, EngineStats, Finished, Message, SamplingParams

PAGE_SIZE = 256
RATE_WINDOW_S = 5.0

FORGET_PERIOD_S = 0.5
"""How often whoever waits for the cache to be emptied looks whether the thread lives."""


Parts = tuple[LoadedModel, TextCodec, GrammarCompiler, Batcher]


class TransformersEngine:
    """Generates with a local model on CPU or GPU; see `GenerationEngine` for the contract."""

    def __init__(self, args: GeneratorArgs) -> None:
        self._args = args
        self._outputs: dict[str, Output] = {}
        self._rate: deque[tuple[float, int]] = deque()
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
        self._rate.append((time.monotonic(), num_new))

    def _on_end(self) -> None:
        """Fail everything that waits: the generation thread has ended."""
        self._is_failed = True
        for output in self._outputs.values():
            output.fail()

    def encode(self, text: str) -> list[int]:
        """Return the tokens of plain text."""
        return self._codec.encode(text)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of a chat in the model's template."""
        return self._codec.encode_chat(messages)

    def check(self, sampling: SamplingParams) -> None:
        """Refuse a grammar that cannot be compiled, and biases of tokens that do not exist."""
        if sampling.grammar is not None:
            self._grammars.matcher(sampling.grammar)
        self._check_tokens((token for token, _ in sampling.logit_bias), "logit_bias")

    def _check_tokens(self, tokens: Iterable[int], param: str) -> None:
        """Refuse a token that does not exist; in a prompt it would kill the generation thread."""
        for token in tokens:
            if not 0 <= token < self._loaded.vocab_size:
                refused = InvalidRequest(f"the model has no token {token}")
                refused.param = param
                raise refused

    async def generate(self, request: EngineRequest) -> AsyncIterator[Delta | Finished]:
        """Yield deltas as tokens come, then `Finished`; closing the iterator frees the slot."""
        max_tokens = self._admit(request)
        sampler = self._sampler(request)
        batcher = self._running()
        # Never a request's own id: a late cancel of its namesake would hit it.
        slot = f"slot-{next(self._slots)}"
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
        self._check_tokens(request.token_ids, "prompt")
        max_tokens = request.sampling.max_tokens
        assert max_tokens is not None, "the replica sets max_tokens"
        if len(request.token_ids) + max_tokens > self.context_length:
            raise ContextTooLong(
                f"the prompt has {len(request.token_ids)} tokens and {max_tokens} were asked for, "
                f"but the model's context holds {self.context_length}"
            )
        if self.stats().num_queued >= self._args.max_queued_requests:
            overloaded = Overloaded("the generation queue is full")
            overloaded.retry_after_s = 1
            raise overloaded
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
        now = time.monotonic()
        while self._rate and self._rate[0][0] < now - RATE_WINDOW_S:
            self._rate.popleft()
        num_running = min(len(processor.scheduler.active_requests), len(self._outputs))
        return EngineStats(
            num_running=num_running,
            num_queued=len(self._outputs) - num_running,
            tokens_per_s=sum(count for _, count in self._rate) / RATE_WINDOW_S,
            kv_cache_usage=1.0 - float(processor.cache.compute_free_capacity()),
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
