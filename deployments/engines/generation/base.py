"""The protocol of a generation engine. It does not know Ray, HTTP, retrieval or choices (`n`)."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from deployments.types import Delta, EngineStats, Finished, Message, SamplingParams


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One sequence to generate. `id` is unique among the requests in flight.

    `is_kept`: whether what was computed for it may serve others when it has ended. `adapter`: the
    id of an adapter that was attached; None: the model as it is.
    """

    id: str
    token_ids: tuple[int, ...]
    sampling: SamplingParams
    is_kept: bool = True
    adapter: str | None = None


class GenerationEngine(Protocol):
    """Generates token by token for many requests at once.

    An engine is built cheaply and starts in `start`; all methods are called from one event loop and
    never block it.
    """

    @property
    def context_length(self) -> int:
        """Return the most tokens that prompt and output may hold together."""
        ...

    async def start(self) -> None:
        """Load the weights and start computing.

        Raises:
            EngineFailed: the model cannot be loaded.
        """
        ...

    def encode(self, text: str) -> list[int]:
        """Return the tokens of plain text; text that looks like a control token stays text."""
        ...

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of a chat in the model's template, ready for the assistant's turn.

        Control tokens come from the template only, never from a message's content.
        """
        ...

    def check(self, sampling: SamplingParams) -> None:
        """Refuse what this engine cannot do.

        Raises:
            InvalidRequest: names the parameter in `param`.
        """
        ...

    async def attach(self, adapter: str, location: str) -> None:
        """Have requests name a LoRA adapter from now on; one that is attached stays as it is.

        Args:
            adapter: its id; never the one of another adapter before.
            location: the folder that PEFT saved it to.

        Raises:
            InvalidRequest: the engine serves no adapters, or this one does not fit the model.
            UnreadableModel: its files are damaged, or of a form that is not served.
        """
        ...

    async def detach(self, adapter: str) -> None:
        """Free an adapter once its requests have ended; nothing happens if it is not attached."""
        ...

    def generate(self, request: EngineRequest) -> AsyncIterator[Delta | Finished]:
        """Yield deltas as tokens come, then exactly one `Finished`.

        Closing the iterator, or cancelling the task that reads it, frees the request's slot.

        Raises:
            InvalidRequest: the engine cannot do what `sampling` asks.
            ModelNotFound: the adapter is not attached.
            Overloaded: the engine's queue is full.
            EngineFailed: the engine died.
        """
        ...

    async def forget(self) -> None:
        """Keep nothing of any request so far; of those that run now, nothing when they have ended.

        Raises:
            EngineFailed: the engine died; it may be that nothing was forgotten.
        """
        ...

    def stats(self) -> EngineStats:
        """Return what the engine is doing now."""
        ...

    def check_health(self) -> None:
        """Raise EngineFailed when the engine can no longer make progress."""
        ...

    async def stop(self) -> None:
        """End every request with EngineFailed and free the weights."""
        ...
