"""Which vectors each collection holds, remembered: a question asks the Retriever once, not always.

What is remembered may be of a collection that was deleted and created again, with another model.
Then the work that rests on it is refused, and the Retriever is asked anew.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TypeVar

from deployments.errors import CollectionNotFound, Conflict, InvalidRequest
from deployments.types import VectorSpace

MAX_REMEMBERED = 4096

T = TypeVar("T")

Ask = Callable[[str], Awaitable[VectorSpace]]
"""Returns a collection's vector space by its path; raises CollectionNotFound."""


class Spaces:
    """Remembers the vector spaces of the collections that were asked about last."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, VectorSpace] = OrderedDict()

    async def of(self, collection: str, ask: Ask) -> VectorSpace:
        """Return a collection's vector space; raises CollectionNotFound."""
        known = self._known.get(collection)
        if known is not None:
            self._known.move_to_end(collection)
            return known
        return await self.fresh(collection, ask)

    async def within(
        self, collection: str, ask: Ask, work: Callable[[VectorSpace], Awaitable[T]]
    ) -> T:
        """Do what depends on a collection's vector space; again if that was another by now.

        Raises:
            CollectionNotFound: no collection has this path.
            InvalidRequest: the work cannot be done on the collection as it is now.
            Conflict: neither can it, or the collection is being replaced all the time.
        """
        space = await self.of(collection, ask)
        try:
            return await work(space)
        except CollectionNotFound:
            self.forget(collection)
            raise
        except (Conflict, InvalidRequest):
            now = await self.fresh(collection, ask)
            if now == space:
                raise
            return await work(now)

    def forget(self, collection: str) -> None:
        """Ask about a collection anew: it is gone, or another."""
        self._known.pop(collection, None)

    async def fresh(self, collection: str, ask: Ask) -> VectorSpace:
        """Return a collection's vector space as it is now; raises CollectionNotFound."""
        self.forget(collection)
        space = self._known[collection] = await ask(collection)
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
        return space
