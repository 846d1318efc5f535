"""The engine over tensor-parallel ranks: requests in, deltas out. The ranks compute."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from deployments.config import GeneratorArgs
from deployments.engines.generation.admission import (
    check_length,
    check_queue,
    check_tokens,
    refused_adapter,
)
from deployments.engines.generation.base import EngineRequest
from deployments.engines.generation.deepspeed.driver import Driver
from deployments.engines.generation.deepspeed.local import LocalRanks
from deployments.engines.generation.deepspeed.ranks import ModelFacts, Outcome, Ranks
from deployments.engines.generation.rate import TokenRate
from deployments.engines.generation.text import TextStream
from deployments.engines.generation.transformers.chat import TextCodec
from deployments.engines.generation.transformers.grammar import GrammarCompiler
from deployments.engines.generation.transformers.loading import read_tokenizer
from deployments.engines.generation.transformers.output import Output
from deployments.engines.generation.transformers.own_text import OwnText
from deployments.errors import EngineFailed
from deployments.types import Delta, EngineStats, Finished

NOTHING = Outcome(progress=(), num_running=0, is_idle=True, kv_cache_usage=0.0)


class DeepSpeedEngine(OwnText):
    """Generates with one model over several ranks; see `GenerationEngine` for the contract."""

    def __init__(
        self, args: GeneratorArgs, ranks: Callable[[GeneratorArgs], Ranks] = LocalRanks
    ) -> None:
        """Take what places the ranks: as processes of this host, or as a replica's actors."""
        self._args = args
        self._driver = Driver(ranks(args), self._on_outcome, self._on_loss)
        self._outputs: dict[str, Output] = {}
        self._slots = itertools.count()
        self._rate = TokenRate()
        self._last = NOTHING

    @property
    def context_length(self) -> int:
        """Return the most tokens of prompt and output: the smallest of three bounds."""
        args = self._args
        return min(args.context_length, args.kv_cache_tokens, self._facts.max_positions)

    async def start(self) -> None:
        """Start the ranks, and read the tokenizer meanwhile.

        Raises:
            EngineFailed: the ranks cannot be placed, or the model not be loaded or split.
        """
        reading = asyncio.ensure_future(asyncio.to_thread(read_tokenizer, self._args))
        try:
            self._facts: ModelFacts = await self._driver.start()
            tokenizer = await reading
            self._codec = TextCodec(tokenizer)
            self._grammars = GrammarCompiler(
                tokenizer, self._facts.vocab_size, self._facts.eos_token_ids
            )
        except BaseException as error:
            reading.cancel()
            await self._driver.stop()
            if isinstance(error, EngineFailed) or not isinstance(error, Exception):
                raise
            raise EngineFailed("cannot load the tokenizer") from error

    async def attach(self, adapter: str, location: str) -> None:
        """Refuse: the ranks hold the model's own weights only."""
        raise refused_adapter("the deepspeed engine serves no adapters: merge it into its base")

    async def detach(self, adapter: str) -> None:
        """Do nothing: none was ever attached."""

    async def generate(self, request: EngineRequest) -> AsyncIterator[Delta | Finished]:
        """Yield deltas as tokens come, then `Finished`; closing the iterator frees the slot."""
        max_tokens = self._admit(request)
        # Never a request's own id: a late cancel of its namesake would hit it.
        slot = f"slot-{next(self._slots)}"
        output = self._outputs[slot] = Output(
            text=TextStream(self._codec.decode, request.sampling.stop),
            eos_token_ids=self._facts.eos_token_ids,
            max_tokens=max_tokens,
            logprobs=[],
            token_bytes=self._grammars.token_bytes,
        )
        try:
            self._driver.submit(replace(request, id=slot))
            while not output.is_finished:
                await output.wake.wait()
                for event in output.take():
                    yield event
        finally:
            del self._outputs[slot]
            self._driver.withdraw(slot)

    def _admit(self, request: EngineRequest) -> int:
        """Return how many tokens the request may have."""
        self.check_health()
        self.check(request.sampling)
        if request.adapter is not None:
            raise refused_adapter("the deepspeed engine serves no adapters")
        check_tokens(request.token_ids, self._facts.vocab_size, "prompt")
        max_tokens = check_length(request, self.context_length)
        check_queue(self.stats().num_queued, self._args.max_queued_requests)
        return max_tokens

    def _on_outcome(self, outcome: Outcome) -> None:
        self._last = outcome
        self._rate.add(sum(len(one.tokens) for one in outcome.progress))
        for one in outcome.progress:
            output = self._outputs.get(one.id)
            if output is not None:
                output.add(one.tokens, one.logprobs)
                if one.is_failed:
                    output.fail()

    def _on_loss(self, slots: list[str]) -> None:
        self._last = NOTHING
        for slot in slots:
            output = self._outputs.get(slot)
            if output is not None:
                output.fail()

    async def forget(self) -> None:
        """Keep nothing of any request so far; of those that run now, nothing when they have ended.

        Raises:
            EngineFailed: the ranks have ended.
        """
        if not self._driver.is_alive:
            return  # nothing was loaded, or it was freed
        self._codec.forget()
        await self._driver.forget()

    def stats(self) -> EngineStats:
        """Return what the engine is doing now; the rate covers the last few seconds."""
        num_running = min(self._last.num_running, len(self._outputs))
        return EngineStats(
            num_running=num_running,
            num_queued=len(self._outputs) - num_running,
            tokens_per_s=self._rate.tokens_per_s,
            kv_cache_usage=self._last.kv_cache_usage,
        )

    def check_health(self) -> None:
        """Raise EngineFailed when there is no gang and no further one is being started."""
        if not self._driver.is_alive:
            raise EngineFailed("the generation engine is not running")

    async def stop(self) -> None:
        """End every request with EngineFailed and free the weights."""
        await self._driver.stop()
