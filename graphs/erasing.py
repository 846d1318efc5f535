"""Erasure beyond the database's rows: every place is cleaned, and the receipt completed.

The work outlives the request that asked for it. What a dying ingress leaves behind, another one
takes up: every step may be done twice.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from deployments.errors import RagError
from deployments.types import Erasure, ErasureScope, Place
from graphs.handles import Deadline
from graphs.shards import Shards

log = logging.getLogger("ray.serve")

WORK_TIMEOUT_S = 3600.0
"""Longest time for cleaning one place: a large database is copied, a large index built anew."""

RESUME_PERIOD_S = 20.0
RESUME_AGE = timedelta(seconds=60)
"""How old an erasure must be before an ingress that did not begin it takes it up."""

Work = Callable[..., Awaitable[Any]]
"""Cleans some places in every replica; takes `deadline` by name."""

MAX_ATTEMPTS = 3
RETRY_PAUSE_S = 2.0
"""Within this, the others learn of a replica that Serve stopped; `resume` comes much later."""

MAX_AT_ONCE = 2
"""Erasures whose places one ingress cleans at the same time; others wait."""


class Erasing:
    """Erases and completes receipts."""

    def __init__(self, shards: Shards, forget: Work) -> None:
        self._shards = shards
        self._forget = forget
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(MAX_AT_ONCE)

    async def erase(self, scope: ErasureScope, deadline: Deadline, wait_s: float) -> Erasure:
        """Erase, and return the receipt: as it is when all is clean, or after `wait_s`.

        Raises:
            RagError: nothing was erased, or whether it was is not known; safe to repeat.
        """
        erasure: Erasure = await self._shards.ask("erase", scope, deadline=deadline)
        work = self._begin(erasure)
        if wait_s > 0:  # with none, uvloop would wait for ever
            await asyncio.wait([work], timeout=wait_s)
        return await self.receipt(erasure.tenant, erasure.id, deadline)

    async def receipt(self, tenant: str, erasure_id: str, deadline: Deadline) -> Erasure:
        """Return a receipt as it is now; raises NotFound."""
        erasure: Erasure = await self._shards.ask("erasure", tenant, erasure_id, deadline=deadline)
        return erasure

    async def resume(self) -> None:
        """Take up, for ever, erasures that nobody completes."""
        while True:
            await asyncio.sleep(RESUME_PERIOD_S)
            try:
                left = await self._shards.ask("incomplete_erasures", deadline=_deadline())
            except RagError:
                continue  # asked again soon
            for erasure in left:
                if datetime.now(UTC) - datetime.fromisoformat(erasure.requested_at) > RESUME_AGE:
                    self._begin(erasure)

    def _begin(self, erasure: Erasure) -> "asyncio.Task[None]":
        task = self._tasks.get(erasure.id)
        if task is None:
            task = self._tasks[erasure.id] = asyncio.ensure_future(self._complete(erasure))
            task.add_done_callback(lambda _: self._tasks.pop(erasure.id))
        return task

    async def _complete(self, erasure: Erasure) -> None:
        async with self._room:
            collection_ids = [part.collection_id for part in erasure.parts]
            work: dict[tuple[Place, ...], Work] = {
                ("database", "tasks"): partial(self._shards.ask, "vacuum"),
                ("indexes", "snapshots"): partial(self._shards.ask_every, "purge", collection_ids),
                ("caches",): self._forget,
            }
            await asyncio.gather(*(self._clean(erasure, *step) for step in work.items()))

    async def _clean(self, erasure: Erasure, places: tuple[Place, ...], work: Work) -> None:
        """Have places cleaned and marked; again at once where a replica was just going."""
        for attempt in range(MAX_ATTEMPTS):
            try:
                await work(deadline=_deadline())
                for place in places:
                    await self._shards.ask("mark_clean", erasure.id, place, deadline=_deadline())
                return
            except RagError as error:
                code = error.code
            if attempt + 1 < MAX_ATTEMPTS:
                await asyncio.sleep(RETRY_PAUSE_S)
        log.warning("erasure %s: %s not clean yet: %s", erasure.id, " and ".join(places), code)


def _deadline() -> Deadline:
    return Deadline(WORK_TIMEOUT_S)
