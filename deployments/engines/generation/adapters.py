"""The LoRA adapters of one engine, by id, each kept for as long as a request uses it.

It knows no weights: an engine says how an adapter is read, and how it is freed.
"""

import asyncio
import itertools
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from deployments.engines.generation.admission import no_adapter, refused_adapter
from deployments.engines.inspection.adapters import Update as UpdateFiles

Sizes = Mapping[str, tuple[int, int]]
"""Inputs and outputs of every linear layer that an adapter may change, by its name in the model."""


class AdapterLedger(ABC):
    """Which adapters are there, and which are in use; used from the engine's event loop.

    Each reading of an adapter has a number of its own, which is never given again: by it pages of
    the cache are kept apart.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._count = itertools.count(1)
        self._users: Counter[int] = Counter()
        self._reading = asyncio.Lock()

    @abstractmethod
    async def _read(self, number: int, location: str) -> None:
        """Have requests use an adapter by its number; raises as `GenerationEngine.attach`."""

    @abstractmethod
    def _free(self, number: int) -> None:
        """Free an adapter that nobody uses any more; nothing waits for it."""

    async def attach(self, adapter: str, location: str) -> None:
        """Read an adapter, unless it is there; see `GenerationEngine.attach`."""
        if adapter in self._numbers:
            return
        async with self._reading:
            if adapter not in self._numbers:
                number = next(self._count)
                await self._read(number, location)
                self._numbers[adapter] = number

    def detach(self, adapter: str) -> None:
        """Give an adapter up once its requests have ended; nothing happens if it is not there."""
        number = self._numbers.pop(adapter, None)
        if number is not None and not self._users[number]:
            self._free(number)

    @contextmanager
    def used(self, adapter: str | None) -> Iterator[int | None]:
        """Keep an adapter for a request, and give its number; raises ModelNotFound."""
        if adapter is None:
            yield None
            return
        number = self._numbers.get(adapter)
        if number is None:
            raise no_adapter()
        self._users[number] += 1
        try:
            yield number
        finally:
            self._users[number] -= 1
            if not self._users[number]:
                del self._users[number]
                if self._numbers.get(adapter) != number:
                    self._free(number)


def check_fits(updates: Iterable[UpdateFiles], sizes: Sizes) -> None:
    """Raise InvalidRequest where an adapter was made for another model."""
    for update in updates:
        ours = sizes.get(update.module)
        if ours is None:
            kinds = ", ".join(sorted({name.rpartition(".")[2] for name in sizes}))
            message = f"the base has no layer {update.module} that an adapter can change"
            raise refused_adapter(f"{message}; it has layers of these names: {kinds}")
        if (update.in_features, update.out_features) != ours:
            theirs = [update.out_features, update.in_features]
            message = f"the adapter was made for another model: its {update.module} is {theirs}"
            raise refused_adapter(f"{message}, the base's is {[ours[1], ours[0]]}")
