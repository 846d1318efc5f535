"""The DeepSpeed engine as a peer in the engine's bench: ranks are processes of this host."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from deployments.config import GeneratorArgs
from deployments.engines.generation.base import GenerationEngine
from deployments.engines.generation.registry import create_engine

Measure = Callable[[GenerationEngine, list[list[int]], int], Awaitable[float]]


class DeepSpeedPeer:
    """The engine over some ranks, with an event loop in a thread of its own."""

    def __init__(self, args: GeneratorArgs, num_ranks: int, measure: Measure) -> None:
        changes = {"engine": "deepspeed", "tensor_parallel": num_ranks}
        self._engine = create_engine(GeneratorArgs(**{**args.model_dump(), **changes}))
        self._measure = measure
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._wait(self._engine.start())

    def measure(self, prompts: list[list[int]], num_tokens: int) -> float:
        """Return tokens per second over all streams, prompts included in the time."""
        return float(self._wait(self._measure(self._engine, prompts, num_tokens)))

    def stop(self) -> None:
        """End the ranks and the thread."""
        self._wait(self._engine.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _wait(self, work: Awaitable[Any]) -> Any:
        async def run() -> Any:
            return await work

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()
