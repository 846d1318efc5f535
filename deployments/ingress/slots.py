"""Who may work now: a bounded number of requests, shared fairly between tenants.

Whoever finds all slots taken is refused at once, unless its tenant has less than its share of
them: then it waits for the next that comes free. So a flood is told to come back, and leaves
others no more than the wait for the first of its requests to end.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from deployments.errors import Overloaded


class Slots:
    """A number of slots; of one event loop."""

    def __init__(self, num_slots: int, max_wait_s: float) -> None:
        self._num_slots = num_slots
        self._max_wait_s = max_wait_s
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By tenant, who was served last at the end; none is empty."""

    @property
    def num_held(self) -> int:
        """Return how many slots are taken."""
        return self._held.total()

    @property
    def num_waiting(self) -> int:
        """Return how many requests wait for one."""
        return sum(map(len, self._waiting.values()))

    @asynccontextmanager
    async def one(self, tenant: str) -> AsyncIterator[None]:
        """Hold a slot.

        Raises:
            Overloaded: there is none, and the tenant has its share; or none came free in time.
        """
        if not self._waiting and self.num_held < self._num_slots:
            self._held[tenant] += 1
        else:
            await self._wait(tenant)
        try:
            yield
        finally:
            self._give_back(tenant)

    def _share(self, tenant: str) -> int:
        """Return how many a tenant may have of slots and places in the queue, if all want some."""
        tenants = {*self._held, *self._waiting, tenant}
        return max(1, self._num_slots // len(tenants))

    async def _wait(self, tenant: str) -> None:
        mine = self._held[tenant] + len(self._waiting.get(tenant, ()))
        if mine >= self._share(tenant) or self.num_waiting >= self._num_slots:
            raise _full()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        try:
            async with asyncio.timeout(self._max_wait_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._give_back(tenant)  # it was given in the very moment of giving up
            else:
                self._leave(tenant, turn)
            if isinstance(error, TimeoutError):
                raise _full() from None
            raise

    def _leave(self, tenant: str, turn: "asyncio.Future[None]") -> None:
        queue = self._waiting.get(tenant, deque())
        if turn in queue:
            queue.remove(turn)
        if not queue:
            self._waiting.pop(tenant, None)

    def _give_back(self, tenant: str) -> None:
        """Give a slot to the waiting tenant that has the fewest; of equals, served longest ago."""
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        while self._waiting:
            following = min(self._waiting, key=lambda one: self._held[one])
            queue = self._waiting.pop(following)
            turn = queue.popleft()
            if queue:
                self._waiting[following] = queue  # at the end now
            if not turn.done():  # else it gave up, and has not run since
                turn.set_result(None)
                self._held[following] += 1
                return


def _full() -> Overloaded:
    return Overloaded("this server is working on all it can; try again shortly")
