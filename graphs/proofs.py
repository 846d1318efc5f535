"""That models answer: each load is tried with something small until it does, or its time is up.

It remembers what it tried in this process only; whoever takes the lifecycle's lease begins anew.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from deployments.errors import InvalidRequest, RagError
from deployments.stores.models import ModelStore
from deployments.types import LoadProgress, ModelState
from graphs.model_app import app_name

log = logging.getLogger("ray.serve")

Probe = Callable[[ModelState], Awaitable[None]]
"""Has a model compute something small, or the replicas of a base give an adapter up; may raise a
RagError."""


class Proofs:
    """The probes that go on between passes, and for how long each load has been waited for."""

    def __init__(self, store: ModelStore, probe: Probe, wake: Callable[[], None]) -> None:
        """Take the registry, what a probe is, and whom to tell of a model that has answered."""
        self._store = store
        self._probe = probe
        self._wake = wake
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._since: dict[str, tuple[object, float]] = {}
        self._errors: dict[str, str] = {}

    def waited_s(self, state: ModelState, *marks: float) -> float:
        """Return for how long this process has waited for a load; `marks` begin the wait anew.

        The row's own time does not count: it goes on while nothing runs, as between `down` and
        `up`.
        """
        name, now = app_name(state), time.monotonic()
        known, since = self._since.get(name, (None, now))
        if known != (state.changed_at, *marks):
            self._errors.pop(name, None)
            since = now
        self._since[name] = ((state.changed_at, *marks), since)
        return now - since

    def last_error(self, state: ModelState) -> str:
        """Return why a load's last probe failed, "" where none has."""
        return self._errors.get(app_name(state), "")

    def prove(self, state: ModelState) -> InvalidRequest | None:
        """Have a model probed, unless it is, and marked ready once it has computed something.

        Returns:
            What is wrong with what was loaded, where a probe has found that out.
        """
        name = app_name(state)
        task = self._tasks.get(name)
        if task is None:
            self._tasks[name] = asyncio.ensure_future(self._probed(state))
        elif task.done():
            del self._tasks[name]
            if (error := _error_of(task)) is not None:
                text = error.message if isinstance(error, RagError) else type(error).__name__
                self._errors[name] = text
                log.warning("%s does not answer yet: %s", state.id, text)
                return error if isinstance(error, InvalidRequest) else None
        return None

    def forget(self, but: set[str]) -> None:
        """Stop what concerns other applications than those of the names given."""
        for name in self._tasks.keys() - but:
            if not (task := self._tasks.pop(name)).cancel():
                _error_of(task)
        for name in self._since.keys() - but:
            del self._since[name]
            self._errors.pop(name, None)

    async def idle(self) -> None:
        """Wait for the probes that go on."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _probed(self, state: ModelState) -> None:
        await self._probe(state)
        seconds = time.time() - state.changed_at
        size = state.spec.num_bytes
        progress = LoadProgress(size, size, round(seconds, 2))
        await asyncio.to_thread(self._store.note_progress, state, progress)
        is_first = state.ready_at is None  # what was lost and is back has been ready for longer
        if await asyncio.to_thread(self._store.advance, state, "ready", is_ready=is_first):
            log.info("%s is ready after %.1f s", state.id, seconds)
        self._wake()


def _error_of(task: asyncio.Task[None]) -> BaseException | None:
    """Return what a task raised that has ended; a cancellation is none of the asker's."""
    return None if task.cancelled() else task.exception()
