"""What is queued is trained: one tuning at a time, by the one ingress that holds the lease.

The workers die with the process that started them, and whoever holds the lease next starts new
ones, which go on from the newest checkpoint. A row's attempt says whose word counts. It does not
know what a tuning does (``tuning_run.py``), nor what may be tuned (``tunings.py``).
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from deployments.config import TuningArgs
from deployments.errors import EngineFailed, RagError, StoreUnavailable
from deployments.stores.leases import Lease
from deployments.stores.tunings import TuningStore
from deployments.types import TuningPhase, TuningState
from graphs.tuning_gang import Gang
from graphs.tuning_run import Diverged, Run, Superseded, discard

log = logging.getLogger("ray.serve")

PERIOD_S = 1.0
LEASE_S = 10.0
RENEW_S = 3.0
LEFT_BEHIND_S = 3600.0

Gangs = Callable[[], Gang]


class Folders:
    """Where tunings and what they make are, in the state folder."""

    def __init__(self, state: Path, results: Path) -> None:
        self._tunings, self._results = state / "tunings", results

    def own(self, id_: str) -> Path:
        """Return a tuning's own folder: its examples and checkpoints."""
        return self._tunings / id_

    def result(self, state: TuningState) -> Path:
        """Return the folder of the version that it makes."""
        return self._results / state.spec.id

    def sweep(self, known: set[str]) -> None:
        """Remove the examples that a killed process left behind before they had a row."""
        if not self._tunings.is_dir():
            return
        for folder in self._tunings.iterdir():
            if folder.name not in known and time.time() - folder.stat().st_mtime > LEFT_BEHIND_S:
                discard(folder)


class Tuner:
    """Works off the queue while the lease is its own."""

    def __init__(
        self,
        store: TuningStore,
        lease: Lease,
        folders: Folders,
        gangs: Gangs,
        args: TuningArgs,
    ) -> None:
        self._store, self._lease, self._folders = store, lease, folders
        self._gangs, self._args = gangs, args
        self._wake = asyncio.Event()
        self._renewed_at = float("-inf")
        self._is_held = False
        self._revision = -1
        self._under_way: Sequence[TuningState] = ()
        self._current = ""
        self._task: asyncio.Task[None] | None = None
        self._failures: dict[str, tuple[int, int]] = {}
        """Of a tuning, how often it failed in a row, and the step that it had reached."""

    def wake(self) -> None:
        """Look now: something was changed."""
        self._wake.set()

    async def run(self) -> None:
        """Work for ever; what trains when this is cancelled goes on elsewhere."""
        try:
            while True:
                self._wake.clear()
                try:
                    await self.step()
                except RagError as error:
                    log.warning("tunings are not looked at: %s", error.message)
                except Exception:  # whatever it is, the next pass must come
                    log.exception("tunings could not be looked at")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), PERIOD_S)
        finally:
            await self._stop()
            if self._is_held:  # so that the next one need not wait until it runs out
                with contextlib.suppress(RagError):
                    await asyncio.to_thread(self._lease.release)

    async def step(self) -> None:
        """Make one pass, if there is something to do and the lease is ours."""
        revision = await asyncio.to_thread(self._store.revision)
        if revision != self._revision:
            self._under_way = await asyncio.to_thread(self._store.under_way)
            self._revision = revision
        if not self._under_way and self._task is None:
            return
        if not await self._holds():
            await self._stop()
            return
        if self._task is not None and self._task.done():
            self._task, self._current = None, ""
        for state in self._under_way:
            if state.phase == "cancelling":
                await self._cancel(state)
        if self._task is None:
            self._begin()

    async def _holds(self) -> bool:
        now = time.monotonic()
        if now - self._renewed_at >= RENEW_S:
            was_held = self._is_held
            self._is_held = await asyncio.to_thread(self._lease.hold)
            self._renewed_at = now
            if self._is_held and not was_held:
                known = {one.id for one in self._under_way}
                await asyncio.to_thread(self._folders.sweep, known)
        return self._is_held

    def _begin(self) -> None:
        """Go on with what ran, else with what has waited for longest."""
        running = [one for one in self._under_way if one.phase == "running"]
        queued = [one for one in self._under_way if one.phase == "queued"]
        for state in (*running, *queued):
            self._current = state.id
            self._task = asyncio.create_task(self._attempt(state.id))
            return

    async def _attempt(self, id_: str) -> None:
        """Start workers and train; whatever happens, they are ended afterwards."""
        known = await self._known(id_)
        if known.phase not in ("queued", "running"):
            return
        state = await asyncio.to_thread(self._store.begin, known)
        if state is None:
            return
        folder = self._folders.own(state.id)
        gang = self._gangs()
        try:
            await Run(state, self._store, gang, folder).run(self._folders.result(state))
        except Superseded:
            log.info("tuning %s is not ours any more", state.id)
        except Diverged as error:
            await self._end(state, "failed", str(error))
        except StoreUnavailable as error:
            log.warning("tuning %s begins again: %s", state.id, error.message)
        except EngineFailed as error:
            await self._failed(state, error.message)
        except Exception as error:  # a tuning that fails must not be tried for ever
            log.exception("tuning %s failed", state.id)
            await self._failed(state, f"{type(error).__name__} while it was trained")
        else:
            await self._end(state, "completed")
        finally:
            await gang.stop()
            self.wake()

    async def _known(self, id_: str) -> TuningState:
        return await asyncio.to_thread(self._store.get, id_)

    async def _failed(self, state: TuningState, error: str) -> None:
        """Leave it to the next pass, unless it fails again and again at the same place."""
        step = (await self._known(state.id)).progress.step
        number, reached = self._failures.get(state.id, (0, -1))
        number = number + 1 if step < reached + state.spec.training.checkpoint_steps else 1
        self._failures[state.id] = (number, max(step, reached))
        log.warning("tuning %s failed at step %d: %s", state.id, step, error)
        if number >= self._args.max_failures:
            await self._end(state, "failed", error)

    async def _end(self, state: TuningState, phase: TuningPhase, error: str = "") -> None:
        if await asyncio.to_thread(self._store.end, state, phase, error):
            await asyncio.to_thread(discard, self._folders.own(state.id))
            self._failures.pop(state.id, None)
            log.info("tuning %s: %s", state.id, phase)

    async def _cancel(self, state: TuningState) -> None:
        if state.id == self._current:
            await self._stop()
        await self._end(state, "cancelled")

    async def _stop(self) -> None:
        """End our own workers, if there are any."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task, self._current = None, ""
