"""Models of a hub are downloaded in the background, by the ingress that holds the lease.

A load's row is written before: until its files are here it has no location. Whoever holds the lease
next goes on with what has come. It does not know what a hub is (``inspection/fetching.py``).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from deployments.config import ModelsArgs
from deployments.engines.inspection.fetching import Fetch, Stopped
from deployments.engines.inspection.hub import HUB, ask
from deployments.errors import Conflict, EngineFailed
from deployments.types import LoadProgress, ModelSpec, ModelState
from graphs.fit import check_fit, machine_free_bytes, rooms
from graphs.model_app import app_name
from graphs.ray_resources import num_gpus, resources
from graphs.specs import order_of, spec_of

Settle = Callable[[ModelState, ModelsArgs], Awaitable[ModelSpec]]
"""Returns what will run, now that the files are here; raises as a load does."""


def is_awaited(spec: ModelSpec) -> bool:
    """Return whether a model's files are still to be downloaded."""
    return spec.source.startswith(HUB) and not spec.location


class Downloads:
    """The downloads of this process; each is begun once, and looked at until it has ended."""

    def __init__(self, args: ModelsArgs, settle: Settle) -> None:
        self._args, self._settle = args, settle
        self._tasks: dict[str, asyncio.Task[ModelSpec]] = {}
        self._fetches: dict[str, Fetch] = {}

    def look(self, state: ModelState) -> ModelSpec | None:
        """Begin a load's download, or go on; return what will run once the files are here.

        Raises:
            RagError: the download has failed.
        """
        name = app_name(state)
        task = self._tasks.get(name)
        if task is None:
            self._tasks[name] = asyncio.ensure_future(self._downloaded(state))
            return None
        if not task.done():
            return None
        del self._tasks[name]
        self._fetches.pop(name, None)
        try:
            return task.result()
        except (Conflict, asyncio.CancelledError):
            return None  # another process has it still, and then this one
        except OSError as error:  # of the disk
            raise EngineFailed(f"the download cannot be written: {error.strerror}") from error

    def progress(self, state: ModelState) -> LoadProgress:
        """Return how far a load's download is."""
        fetch = self._fetches.get(app_name(state))
        num_read, total = (fetch.num_read, fetch.offer.num_bytes) if fetch else (0, 0)
        seconds = round(time.time() - state.changed_at, 2)
        return LoadProgress(num_read, total or state.spec.num_bytes, seconds)

    def forget(self, but: set[str]) -> None:
        """Stop the downloads of other applications than those of the names given."""
        for name in self._tasks.keys() - but:
            self._tasks.pop(name).cancel()
            if (fetch := self._fetches.pop(name, None)) is not None:
                fetch.stop()

    async def _downloaded(self, state: ModelState) -> ModelSpec:
        model = state.spec.source.removeprefix(HUB)
        fetch = Fetch(await asyncio.to_thread(ask, model, self._args))
        self._fetches[app_name(state)] = fetch
        try:
            await asyncio.to_thread(fetch.run)
        except Stopped:
            raise asyncio.CancelledError from None
        finally:
            fetch.stop()  # the thread does not end with this task
        return await self._settle(state, self._args)


async def settle(state: ModelState, args: ModelsArgs) -> ModelSpec:
    """Return what will run of a model whose files are here, once it fits; raises as a load."""
    total, free = await asyncio.to_thread(resources)
    spec = await asyncio.to_thread(spec_of, order_of(state.spec), num_gpus(total), args)
    check_fit(spec, args, rooms(total, free), machine_free_bytes())
    return spec
