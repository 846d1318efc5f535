"""What the engine says to its ranks, and what they answer. It knows no process and no model."""

from dataclasses import dataclass
from typing import Protocol

from deployments.engines.generation.base import EngineRequest
from deployments.engines.generation.transformers.sampling import Alternatives


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the engine has to know of a loaded model; all ranks must say the same."""

    vocab_size: int
    max_positions: int
    eos_token_ids: frozenset[int]
    num_pages: int


@dataclass(frozen=True, slots=True)
class Orders:
    """What changes before the next step: the same for every rank, in the same order.

    With `is_forgetting` the ranks keep nothing of any request so far (`GenerationEngine.forget`).
    """

    joins: tuple[EngineRequest, ...] = ()
    cancels: tuple[str, ...] = ()
    is_forgetting: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """The new tokens of one request, with their log-probabilities where they were asked for."""

    id: str
    tokens: tuple[int, ...]
    logprobs: tuple[Alternatives, ...] = ()
    is_failed: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step brought, and what is left to do."""

    progress: tuple[Progress, ...]
    num_running: int
    is_idle: bool
    kv_cache_usage: float


class Ranks(Protocol):
    """The processes of one gang. After `stop`, or when one has died, `start` begins a new gang."""

    async def start(self) -> ModelFacts:
        """Start every rank and wait until all have loaded their part of the model.

        Raises:
            EngineFailed: a rank could not be placed, died, or cannot load the model.
        """
        ...

    async def step(self, orders: Orders) -> Outcome:
        """Let every rank take the orders and compute one step.

        Raises:
            EngineFailed: a rank died or failed; the gang is of no more use.
        """
        ...

    async def stop(self) -> None:
        """End every rank at once, whatever it is doing; harmless when there is none."""
        ...
