"""How many tokens wait in front of an engine, counted the same way for every engine.

It does not know why they wait: for a slot, for room in the KV cache, or for their prefill.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

Event = TypeVar("Event")


class WaitingTokens:
    """Counts the tokens of the sequences whose first event has not come."""

    def __init__(self) -> None:
        self.num_tokens = 0

    async def watched(
        self, events: AsyncGenerator[Event], num_tokens: int
    ) -> AsyncGenerator[Event]:
        """Yield a sequence's events; its tokens wait until the first one, or the end."""
        waiting = num_tokens
        self.num_tokens += waiting
        try:
            async with aclosing(events):
                async for event in events:
                    self.num_tokens -= waiting
                    waiting = 0
                    yield event
        finally:
            self.num_tokens -= waiting
