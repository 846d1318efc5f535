"""The engine over transformers' continuous batching: requests in, deltas out."""

import asyncio
import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field

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
from deployments.engines.generation.transformers.loading import LoadedModel, load
from deployments.errors import ContextTooLong, EngineFailed, Overloaded
from deployments.types import Delta, EngineStats, Finished, Message, SamplingParams

PAGE_SIZE = 256
RATE_WINDOW_S = 5.0


@dataclass(slots=True)
class Waiting:
    """What a request's reader has not taken yet. Touched in the event loop only."""

    tokens: list[int] = field(default_factory=list)
    is_failed: bool = False
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class TransformersEngine:
    """Generates with a local model on CPU or GPU; see `GenerationEngine` for the contract."""

    def __init__(self, args: GeneratorArgs) -> None:
        self._args = args
        self._waiting: dict[str, Waiting] = {}
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
        ready: asyncio.Future[tuple[LoadedModel, TextCodec, Batcher]] = loop.create_future()
        self._thread = threading.Thread(
            target=self._run, args=(loop, ready), name="generation", daemon=True
        )
        self._thread.start()
        self._loaded, self._codec, self._batcher = await ready

    def _run(
        self,
        loop: asyncio.AbstractEventLoop,
        ready: asyncio.Future[tuple[LoadedModel, TextCodec, Batcher]],
    ) -> None:
        """Load and generate in one thread, so that the process has one OpenMP pool.

        Two pools (loading in one thread, generating in another) fight for the cores.
        """
        try:
            if self._args.num_threads:
                torch.set_num_threads(self._args.num_threads)
            loaded = load(self._args)
            codec = TextCodec(loaded.tokenizer)
            config = batching_config(
                self._args.max_batch_tokens, self._args.kv_cache_tokens, PAGE_SIZE
            )
            batcher = Batcher(loaded.model, StepRouter(loop, self._on_step), config)
        except Exception as error:  # any failure to load is told to whoever waits in `start`
            failed = error if isinstance(error, EngineFailed) else EngineFailed("cannot load model")
            failed.__cause__ = None if failed is error else error
            loop.call_soon_threadsafe(ready.set_exception, failed)
            return
        loop.call_soon_threadsafe(ready.set_result, (loaded, codec, batcher))
        try:
            batcher.run()
        finally:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._on_end)

    def _on_step(self, step: Step) -> None:
        num_new = 0
        for request_id, tokens, is_failed in step:
            waiting = self._waiting.get(request_id)
            if waiting is None:  # its reader went away while this step was computed
                assert self._batcher is not None
                self._batcher.cancel_request(request_id)
                continue
            num_new += len(tokens) - len(waiting.tokens)
            waiting.tokens = tokens
            waiting.is_failed = is_failed
            waiting.wake.set()
        self._rate.append((time.monotonic(), num_new))

    def _on_end(self) -> None:
        """Fail everything that waits: the generation thread has ended."""
        self._is_failed = True
        for waiting in self._waiting.values():
            waiting.is_failed = True
            waiting.wake.set()

    def encode(self, text: str) -> list[int]:
        """Return the tokens of plain text."""
        return self._codec.encode(text)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of a chat in the model's template."""
        return self._codec.encode_chat(messages)

    def check(self, sampling: SamplingParams) -> None:
        """Refuse what this engine cannot do."""

    async def generate(self, request: EngineRequest) -> AsyncIterator[Delta | Finished]:
        """Yield deltas as tokens come, then `Finished`; closing the iterator frees the slot."""
        max_tokens = self._admit(request)
        assert self._batcher is not None
        # Never a request's own id: a late cancel of its namesake would hit it.
        slot = f"slot-{next(self._slots)}"
        waiting = self._waiting[slot] = Waiting()
        events = self._events(request, waiting, max_tokens)
        try:
            self._batcher.add_request(
                list(request.token_ids),
                slot,
                max_new_tokens=max_tokens,
                streaming=True,
                eos_token_id=list(self._loaded.eos_token_ids),
            )
            async for event in events:
                yield event
        finally:
            await events.aclose()
            del self._waiting[slot]
            self._batcher.cancel_request(slot)

    async def _events(
        self, request: EngineRequest, waiting: Waiting, max_tokens: int
    ) -> AsyncGenerator[Delta | Finished]:
        text = TextStream(self._codec.decode, request.sampling.stop)
        num_read = 0
        while True:
            await waiting.wake.wait()
            waiting.wake.clear()
            tokens = waiting.tokens[num_read:]
            released = ""
            reason = None
            for token in tokens:
                num_read += 1
                if token in self._loaded.eos_token_ids:
                    reason = "stop"
                    break
                released += text.push(token)
                if text.is_stopped:
                    reason = "stop"
                    break
            if reason is None and num_read >= max_tokens:
                reason = "length"
            if reason is not None:
                released += text.flush()
            if released:
                yield Delta(released)
            if reason is not None:
                yield Finished("stop" if reason == "stop" else "length", num_read)
                return
            if waiting.is_failed:
                raise EngineFailed("the generation engine failed while it worked on this request")

    def _admit(self, request: EngineRequest) -> int:
        """Return how many tokens the request may have."""
        self.check_health()
        self.check(request.sampling)
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

    def stats(self) -> EngineStats:
        """Return what the engine is doing now; the rate covers the last few seconds."""
        processor = self._batcher.batch_processor if self._batcher else None
        if processor is None:
            return EngineStats()
        now = time.monotonic()
        while self._rate and self._rate[0][0] < now - RATE_WINDOW_S:
            self._rate.popleft()
        num_running = min(len(processor.scheduler.active_requests), len(self._waiting))
        return EngineStats(
            num_running=num_running,
            num_queued=len(self._waiting) - num_running,
            tokens_per_s=sum(count for _, count in self._rate) / RATE_WINDOW_S,
            kv_cache_usage=1.0 - float(processor.cache.compute_free_capacity()),
        )

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
