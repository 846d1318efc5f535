"""Keeps a gang at work: step after step while there is something to do, and a new gang for a lost.

It knows requests by their ids, and nothing of their text.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from deployments.engines.generation.base import EngineRequest
from deployments.engines.generation.deepspeed.ranks import ModelFacts, Orders, Outcome, Ranks
from deployments.errors import EngineFailed

STEP_TIMEOUT_S = 300.0
"""A step is bounded by `max_batch_tokens`; ranks that take this long wait for one that is lost."""

MAX_STARTS = 3
"""Starts in a row that may fail before the engine gives up and Serve replaces the replica."""

START_PAUSE_S = 1.0

logger = logging.getLogger(__name__)


class Driver:
    """Gives a gang its orders. Lives in the event loop only.

    Args:
        ranks: the gang, not started.
        on_outcome: called after every step.
        on_loss: called with the ids of the requests that went down with a gang.
    """

    def __init__(
        self,
        ranks: Ranks,
        on_outcome: Callable[[Outcome], None],
        on_loss: Callable[[list[str]], None],
    ) -> None:
        self._ranks = ranks
        self._on_outcome = on_outcome
        self._on_loss = on_loss
        self._joins: dict[str, EngineRequest] = {}
        self._cancels: list[str] = []
        self._given: set[str] = set()
        self._forgets: list[asyncio.Future[None]] = []
        self._work = asyncio.Event()
        self._is_idle = True
        self._task: asyncio.Task[None] | None = None

    @property
    def is_alive(self) -> bool:
        """Return whether requests will be computed, now or by the gang that is being started."""
        return self._task is not None and not self._task.done()

    async def start(self) -> ModelFacts:
        """Start the gang and the work.

        Raises:
            EngineFailed: the gang did not start.
        """
        try:
            facts = await self._ranks.start()
        except BaseException:
            await self._ranks.stop()
            raise
        self._task = asyncio.create_task(self._run())
        return facts

    def submit(self, request: EngineRequest) -> None:
        """Let a request join at the next step."""
        self._joins[request.id] = request
        self._work.set()

    def withdraw(self, id_: str) -> None:
        """Free what a request holds, at the next step; harmless when it has ended."""
        if self._joins.pop(id_, None) is None and id_ in self._given:
            self._given.remove(id_)
            self._cancels.append(id_)
            self._work.set()

    async def forget(self) -> None:
        """Wait until the ranks keep nothing of any request so far, be it in a new gang.

        Raises:
            EngineFailed: there is no gang any more.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._forgets.append(done)
        self._work.set()
        await done

    async def stop(self) -> None:
        """End the work and the gang; every request is lost."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._ranks.stop()

    async def _run(self) -> None:
        try:
            while True:
                if self._is_idle:
                    await self._work.wait()
                self._work.clear()
                try:
                    await self._step()
                except (EngineFailed, TimeoutError) as error:
                    logger.warning("a gang is lost: %s", error)
                    self._lose(list(self._given))
                    await self._renew()
        except EngineFailed:
            logger.exception("no gang could be started")
        finally:
            self._lose([*self._given, *self._joins])
            self._joins.clear()
            self._answer(self._forgets, EngineFailed("the generation engine has ended"))

    async def _step(self) -> None:
        forgets = list(self._forgets)
        orders = Orders(tuple(self._joins.values()), tuple(self._cancels), bool(forgets))
        self._given.update(self._joins)
        self._joins.clear()
        self._cancels.clear()
        async with asyncio.timeout(STEP_TIMEOUT_S):
            outcome = await self._ranks.step(orders)
        self._forgets = self._forgets[len(forgets) :]
        self._answer(forgets)
        self._is_idle = outcome.is_idle
        self._on_outcome(outcome)

    def _answer(self, waiting: list[asyncio.Future[None]], error: Exception | None = None) -> None:
        for done in waiting:
            if done.done():  # who waited has been cancelled
                continue
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

    def _lose(self, ids: list[str]) -> None:
        self._given.clear()
        self._cancels.clear()
        self._is_idle = True
        if self._forgets:
            self._work.set()  # the next gang answers who waits
        self._on_loss(ids)

    async def _renew(self) -> None:
        """Start a new gang; requests that come meanwhile wait for it."""
        for attempt in range(MAX_STARTS):
            with contextlib.suppress(EngineFailed):
                await self._ranks.stop()
                await self._ranks.start()
                return
            await asyncio.sleep(START_PAUSE_S * 2**attempt)
        raise EngineFailed("the ranks could not be started again")
