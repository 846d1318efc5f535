"""What the replicas of batching engines share: loading once, how much waits, and health.

It knows no engine's own calls; a subclass adds those, and says what a health check asks.
"""

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from deployments.discretion import be_discreet
from deployments.errors import EngineFailed, Overloaded
from deployments.types import ReplicaVitals
from deployments.vitals import replica_vitals

PROBE_TIMEOUT_S = 20.0
"""Less than Serve's own limit on a health check (30 s), so that the replica says what is wrong."""


@dataclass(frozen=True, slots=True)
class BatchedStats:
    """What a replica is doing: how many tokens wait is what scaling should look at."""

    num_tokens_waiting: int


class BatchedEngine(Protocol):
    """What every batching engine offers beside its own calls."""

    async def start(self) -> None:
        """Load the weights; raises EngineFailed when the model cannot be loaded."""
        ...

    async def stop(self) -> None:
        """Free the weights; waiting callers get EngineFailed."""
        ...

    def num_tokens_waiting(self) -> int:
        """Return how many tokens are queued."""
        ...

    def forget(self) -> None:
        """Keep nothing of the texts so far."""
        ...


Engine = TypeVar("Engine", bound=BatchedEngine)


class BatchedReplica(ABC, Generic[Engine]):
    """One model in one process. It loads on first use, which in Serve is the first health check."""

    kind: str
    """What its engine does, for errors."""

    def __init__(self, engine: Engine) -> None:
        be_discreet()
        self._engine = engine
        self._start: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the model, once; every method does so when nobody has.

        Raises:
            EngineFailed: the model cannot be loaded.
        """
        if self._start is None:
            self._start = asyncio.create_task(self._engine.start())
        await asyncio.shield(self._start)

    async def stop(self) -> None:
        """Free the model; whoever still waits gets EngineFailed."""
        await self._engine.stop()

    async def stats(self) -> BatchedStats:
        """Return what the replica is doing now."""
        return BatchedStats(self._engine.num_tokens_waiting())

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what ``cluster/autoscaling.py`` looks at: how many tokens wait."""
        return {"tokens_waiting": float(self._engine.num_tokens_waiting())}

    async def vitals(self) -> ReplicaVitals:
        """Return what the process and its machine hold."""
        return replica_vitals(num_queued=self._engine.num_tokens_waiting())

    async def forget(self) -> None:
        """Keep nothing of the texts so far."""
        self._engine.forget()

    async def check_health(self) -> None:
        """Compute something small; the first check waits for the model. A full queue is no illness.

        Raises:
            EngineFailed: the engine does not load, is dead, or did not answer in time.
        """
        await self.start()
        try:
            await asyncio.wait_for(self.probe(), PROBE_TIMEOUT_S)
        except Overloaded:
            return
        except TimeoutError:
            raise EngineFailed(f"the {self.kind} engine does not answer") from None

    @abstractmethod
    async def probe(self) -> None:
        """Have the model compute something small."""
