"""What runs is made what should run: the reconciler of models that are loaded at run time.

Every ingress has one, and the one with the lease works. It compares the registry's rows with
Serve's applications, again and again, and takes one step where they differ; every step may be done
twice, so that a kill at any instant is made good by the next pass. A row's attempt is part of its
application's name: a holder that was stopped for long, and works on without the lease, can only
touch what the others have given up, too. It does not route requests (``models.py``).
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

from deployments.config import ModelsArgs
from deployments.errors import InvalidRequest, RagError
from deployments.stores.leases import Lease
from deployments.stores.models import ModelStore
from deployments.types import LOADED, LoadProgress, ModelPhase, ModelState, Registry
from graphs.model_app import app_name
from graphs.routes import EMPTY
from graphs.serve_apps import AppReport, Apps

log = logging.getLogger("ray.serve")

PERIOD_S = 1.0
CALM_PERIOD_S = 5.0
"""How often applications are compared where nothing has changed, and there are some."""

LEASE_S = 10.0
RENEW_S = 3.0
REROUTE_S = 2.0
"""How long an unloading model still gets its replicas: ingresses learn of it in a quarter of it."""

Probe = Callable[[ModelState], Awaitable[None]]
"""Has a model compute something small, or the replicas of a base give an adapter up; may raise a
RagError."""

Look = Callable[[ModelState, AppReport], LoadProgress]
"""Says how far a load is."""


class Lifecycle:
    """Deploys, probes, marks and deletes until the registry and Serve agree."""

    def __init__(
        self,
        store: ModelStore,
        lease: Lease,
        apps: Apps,
        args: ModelsArgs,
        probe: Probe,
        look: Look,
        detach: Probe,
    ) -> None:
        self._store = store
        self._lease = lease
        self._apps = apps
        self._args = args
        self._probe = probe
        self._look = look
        self._detach = detach
        self._wake = asyncio.Event()
        self._renewed_at = float("-inf")
        self._is_held = False
        self._compared_at = float("-inf")
        self._registry = EMPTY
        self._is_calm = False
        self._probes: dict[str, asyncio.Task[None]] = {}

    def wake(self) -> None:
        """Look now: something was changed."""
        self._wake.set()

    async def run(self) -> None:
        """Work for ever."""
        while True:
            self._wake.clear()
            try:
                await self.step()
            except RagError as error:
                self._is_calm = False
                log.warning("models are not compared with what runs: %s", error.message)
            except Exception:  # whatever it is, the next pass must come
                self._is_calm = False
                log.exception("models could not be compared with what runs")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), PERIOD_S)

    async def step(self) -> None:
        """Make one pass, if there may be something to do and the lease is ours."""
        await self._read()
        models = self._registry.models.values()
        if self._is_calm and all(one.phase == "unloaded" for one in models):
            return
        if not await self._holds():
            return
        if any(one.retire_at is not None and one.retire_at <= time.time() for one in models):
            for state in await asyncio.to_thread(self._store.unload_retired, time.time()):
                log.info("%s is unloaded: no alias names it any more", state.id)
            await self._read()
        is_due = time.monotonic() - self._compared_at >= CALM_PERIOD_S
        if is_due or not self._is_calm:
            self._is_calm = await self._compare(self._registry)
            self._compared_at = time.monotonic()

    async def _read(self) -> None:
        """Take over the newest registry; what is new is to be compared."""
        if await asyncio.to_thread(self._store.revision) != self._registry.revision:
            self._registry = await asyncio.to_thread(self._store.read)
            self._is_calm = False

    async def _holds(self) -> bool:
        now = time.monotonic()
        if now - self._renewed_at >= RENEW_S:
            was_held = self._is_held
            self._is_held = await asyncio.to_thread(self._lease.hold)
            self._renewed_at = now
            if self._is_held and not was_held:
                self._is_calm = False
        return self._is_held

    async def _compare(self, registry: Registry) -> bool:
        """Take a step for every model that differs; return whether nothing is left to do."""
        reports = await self._apps.reports()
        is_calm = True
        for state in registry.models.values():
            if not await self._holds():
                return False
            if state.spec.base:
                is_calm &= await self._settle_adapter(state, registry)
            else:
                is_calm &= await self._settle(state, reports.get(app_name(state)))
        wanted = {app_name(state) for state in registry.models.values()}
        for name, report in reports.items():
            if name not in wanted and not report.is_going:
                log.warning("application %s belongs to no model; it is deleted", name)
                await self._apps.delete(name)
        self._forget_probes(wanted)
        return is_calm

    async def _settle(self, state: ModelState, report: AppReport | None) -> bool:
        """Take one step for a model; return whether there is none to take."""
        if state.phase == "loading":
            await self._load(state, report)
            return False
        if state.phase == "ready":
            if report is not None and not report.is_going:
                return True
            log.warning("%s should run and does not; it is loaded again", state.id)
            await self._advance(state, "loading")
            return False
        if state.phase == "unloading":
            await self._unload(state, report)
            return False
        if report is not None and not report.is_going:
            await self._apps.delete(app_name(state))
        return report is None

    async def _settle_adapter(self, state: ModelState, registry: Registry) -> bool:
        """Take one step for an adapter, which has no application but its base's; as `_settle`."""
        base = registry.models.get(state.spec.base)  # None: one of the configuration, which runs
        has_base = base is None or base.phase == "ready"
        if state.phase == "loading":
            since = max(state.changed_at, base.changed_at if base else 0.0)
            if base is not None and base.phase not in LOADED:
                await self._advance(state, "failed", "the adapter's base is not loaded")
            elif has_base and time.time() - since > self._args.start_timeout_s:
                await self._advance(state, "failed", "its base did not answer with it in time")
            elif has_base:
                await self._prove(state)
            return False
        if state.phase == "ready" and not has_base:
            await self._advance(state, "loading")
            return False
        if state.phase != "unloading":
            return True
        if has_base and time.time() - state.changed_at < REROUTE_S:
            return False
        try:
            if has_base:
                await self._detach(state)
        except RagError as error:
            log.warning("%s is not given up yet: %s", state.id, error.message)
        else:
            await self._advance(state, "unloaded")
        return False

    async def _load(self, state: ModelState, report: AppReport | None) -> None:
        seconds = time.time() - state.changed_at
        if report is not None and report.has_failed:
            await self._fail(state, report.error)
        elif seconds > self._args.start_timeout_s:
            await self._fail(state, report.error if report else "")
        elif report is None or report.is_going:
            try:
                await self._apps.deploy(state)
            except InvalidRequest as error:
                await self._fail(state, error.message)
        elif report.is_running:
            await self._prove(state)
        else:
            progress = await asyncio.to_thread(self._look, state, report)
            await asyncio.to_thread(self._store.note_progress, state, progress)

    async def _prove(self, state: ModelState) -> None:
        """Mark a model ready once it has computed something; a probe goes on between passes."""
        name = app_name(state)
        if name not in self._probes:
            self._probes[name] = asyncio.ensure_future(self._probed(state))
        elif self._probes[name].done():
            task = self._probes.pop(name)
            if (error := task.exception()) is not None:
                text = error.message if isinstance(error, RagError) else type(error).__name__
                log.warning("%s does not answer yet: %s", state.id, text)
                if state.spec.base and isinstance(error, InvalidRequest):
                    await self._advance(state, "failed", error.message)

    async def _probed(self, state: ModelState) -> None:
        await self._probe(state)
        seconds = time.time() - state.changed_at
        size = state.spec.num_bytes
        progress = LoadProgress(size, size, round(seconds, 2))
        await asyncio.to_thread(self._store.note_progress, state, progress)
        is_first = state.ready_at is None  # what was lost and is back has been ready for longer
        if await asyncio.to_thread(self._store.advance, state, "ready", is_ready=is_first):
            log.info("%s is ready after %.1f s", state.id, seconds)
        self.wake()

    async def _fail(self, state: ModelState, error: str) -> None:
        error = error or f"it did not answer within {self._args.start_timeout_s:g} s"
        log.error("%s could not be loaded: %s", state.id, error)
        await self._advance(state, "failed", error)
        await self._apps.delete(app_name(state))

    async def _unload(self, state: ModelState, report: AppReport | None) -> None:
        """Delete the application once no ingress sends it requests; those it has are finished."""
        if report is None:
            await self._advance(state, "unloaded")
        elif not report.is_going and time.time() - state.changed_at >= REROUTE_S:
            await self._apps.delete(app_name(state))

    async def _advance(self, state: ModelState, phase: ModelPhase, error: str = "") -> None:
        await asyncio.to_thread(self._store.advance, state, phase, error=error)
        self.wake()

    def _forget_probes(self, wanted: set[str]) -> None:
        for name in self._probes.keys() - wanted:
            self._probes.pop(name).cancel()
