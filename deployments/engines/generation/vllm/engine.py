"""The engine that has vLLM compute. Text, stop strings and refusals are those of every engine."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any

from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from deployments.config import GeneratorArgs
from deployments.engines.generation.admission import (
    check_length,
    check_queue,
    check_tokens,
    refused_adapter,
)
from deployments.engines.generation.base import EngineRequest
from deployments.engines.generation.rate import TokenRate
from deployments.engines.generation.text import TextStream
from deployments.engines.generation.transformers.chat import TextCodec
from deployments.engines.generation.transformers.grammar import GrammarCompiler
from deployments.engines.generation.transformers.loading import read_tokenizer
from deployments.engines.generation.transformers.output import Output
from deployments.engines.generation.transformers.own_text import OwnText
from deployments.engines.generation.vllm.adapters import Adapters, sizes_of
from deployments.engines.generation.vllm.load import CacheLoad
from deployments.engines.generation.vllm.sampling import alternatives, params_of
from deployments.engines.generation.vllm.settings import (
    check_device,
    engine_args,
    readable,
    set_environment,
)
from deployments.errors import EngineFailed
from deployments.types import Delta, EngineStats, Finished

STOP_TIMEOUT_S = 10.0


class VllmEngine(OwnText):
    """Generates with vLLM in processes of its own; see `GenerationEngine` for the contract."""

    def __init__(self, args: GeneratorArgs) -> None:
        self._args = args
        self._llm: Any = None
        self._outputs: dict[str, Output] = {}
        self._begun: set[str] = set()
        self._slots = itertools.count()
        self._epoch = 0
        self._rate = TokenRate()
        self._cache = CacheLoad()

    @property
    def context_length(self) -> int:
        """Return the most tokens of prompt and output."""
        return int(self._llm.model_config.max_model_len)

    async def start(self) -> None:
        """Start vLLM's processes and load the model; raises EngineFailed."""
        check_device(self._args)
        set_environment(self._args)
        try:
            tokenizer = await asyncio.to_thread(read_tokenizer, self._args)
            eos_token_id = await asyncio.to_thread(self._load)
        except Exception as error:  # whatever vLLM's processes met
            if isinstance(error, EngineFailed):
                raise
            raise EngineFailed(f"vLLM cannot load the model: {type(error).__name__}") from error
        self._eos_token_ids = _ids(eos_token_id) | _ids(tokenizer.eos_token_id)
        self._vocab_size = int(self._llm.model_config.get_vocab_size())
        self._codec = TextCodec(tokenizer)
        self._grammars = GrammarCompiler(tokenizer, self._vocab_size, self._eos_token_ids)

    def _load(self) -> Any:
        """Start vLLM; return what the model says ends a text. It reads the folder until then."""
        with readable(self._args) as folder:
            sizes = sizes_of(folder) if self._args.max_adapters else {}
            loggers = [lambda *_: self._cache]
            self._llm = AsyncLLM.from_engine_args(
                engine_args(self._args, folder, sizes), stat_loggers=loggers
            )
            self._adapters = Adapters(self._llm, sizes, self._args.max_adapter_rank)
            generation = self._llm.model_config.try_get_generation_config() or {}
            return generation.get("eos_token_id")

    async def attach(self, adapter: str, location: str) -> None:
        """Have vLLM read an adapter that fits the model, once."""
        self.check_health()
        if not self._args.max_adapters:
            raise refused_adapter("this model has no room for adapters: load it with max_adapters")
        await self._adapters.attach(adapter, location)

    async def detach(self, adapter: str) -> None:
        """Free an adapter once its requests have ended."""
        self._adapters.detach(adapter)

    async def generate(self, request: EngineRequest) -> AsyncIterator[Delta | Finished]:
        """Yield deltas as tokens come, then `Finished`; closing the iterator frees the slot."""
        max_tokens = self._admit(request)
        with self._adapters.used(request.adapter) as adapter:
            slot = f"slot-{next(self._slots)}"
            output = self._outputs[slot] = Output(
                text=TextStream(self._codec.decode, request.sampling.stop),
                eos_token_ids=self._eos_token_ids,
                max_tokens=max_tokens,
                logprobs=[],
                token_bytes=self._grammars.token_bytes,
            )
            reading = asyncio.create_task(self._read(slot, request, output, adapter))
            try:
                while not output.is_finished:
                    await output.wake.wait()
                    for event in output.take():
                        yield event
            finally:
                del self._outputs[slot]
                self._begun.discard(slot)
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    def _admit(self, request: EngineRequest) -> int:
        """Return how many tokens the request may have."""
        self.check_health()
        self.check(request.sampling)
        check_tokens(request.token_ids, self._vocab_size, "prompt")
        max_tokens = check_length(request, self.context_length)
        check_queue(self.stats().num_queued, self._args.max_queued_requests)
        return max_tokens

    async def _read(
        self, slot: str, request: EngineRequest, output: Output, adapter: int | None
    ) -> None:
        """Take what vLLM computes for a request; a cancellation has vLLM drop it."""
        prompt = {
            "prompt_token_ids": list(request.token_ids),
            "cache_salt": self._salt(slot, request, adapter),
        }
        params = params_of(request.sampling, output.max_tokens, self._eos_token_ids)
        lora = self._adapters.request(adapter)
        generated = self._llm.generate(prompt, params, slot, lora_request=lora)
        try:
            async with contextlib.aclosing(generated) as steps:
                async for step in steps:
                    self._begun.add(slot)
                    [part] = step.outputs
                    number = request.sampling.logprobs
                    self._rate.add(len(part.token_ids))
                    output.add(part.token_ids, alternatives(part.token_ids, part.logprobs, number))
        finally:
            output.fail()  # without effect where the text has ended

    def _salt(self, slot: str, request: EngineRequest, adapter: int | None) -> str:
        """Return what pages must share beside their tokens: nothing may reuse those forgotten."""
        shared = f"{self._epoch}-{adapter or 0}"
        return shared if request.is_kept else f"{shared}-{slot}"

    async def forget(self) -> None:
        """Keep nothing of any request so far; of those that run now, nothing when they have ended.

        Raises:
            EngineFailed: vLLM's processes have ended.
        """
        if self._llm is None:
            return  # nothing was loaded, or it was freed
        self._epoch += 1
        self._codec.forget()
        try:
            await self._llm.reset_prefix_cache()
        except EngineDeadError as error:
            raise EngineFailed("vLLM has ended") from error

    def stats(self) -> EngineStats:
        """Return what the engine is doing now; the rate covers the last few seconds."""
        return EngineStats(
            num_running=len(self._begun),
            num_queued=len(self._outputs) - len(self._begun),
            tokens_per_s=self._rate.tokens_per_s,
            kv_cache_usage=self._cache.usage,
        )

    def check_health(self) -> None:
        """Raise EngineFailed when vLLM has ended."""
        if self._llm is None or self._llm.errored:
            raise EngineFailed("the generation engine is not running")

    async def stop(self) -> None:
        """End every request with EngineFailed, and vLLM's processes."""
        llm, self._llm = self._llm, None
        for output in self._outputs.values():
            output.fail()
        if llm is not None:
            self._adapters.stop()
            await asyncio.to_thread(llm.shutdown, STOP_TIMEOUT_S)


def _ids(eos: int | Sequence[int] | None) -> frozenset[int]:
    return frozenset(eos if isinstance(eos, Sequence) else [] if eos is None else [eos])
