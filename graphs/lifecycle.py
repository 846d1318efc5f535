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
from collections.abc import Callable, Container

from deployments.config import ModelsArgs
from deployments.errors import InvalidRequest, RagError, StoreUnavailable
from deployments.stores.leases import Lease
from deployments.stores.models import ModelStore
from deployments.types import LOADED, LoadProgress, ModelPhase, ModelState, Registry
from graphs.downloads import Downloads, is_awaited
from graphs.model_app import app_name
from graphs.proofs import Probe, Proofs
from graphs.routes import EMPTY
from graphs.serve_apps import CANNOT_START, AppReport, Apps
from graphs.tenure import Tenure

log = logging.getLogger("ray.serve")

PERIOD_S = 1.0
CALM_PERIOD_S = 5.0
"""How often applications are compared where nothing has changed, and there are some."""

REST_PERIOD_S = 60.0
"""How often where there should be none: one may come late, deployed by who has lost the lease."""

REROUTE_S = 2.0
"""How long an unloading model still gets its replicas: ingresses learn of it in a quarter of it."""

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
        own: Container[str],
        downloads: Downloads,
    ) -> None:
        """Take what to compare and change; `own` are the configuration's models, as bases."""
        self._store = store
        self._tenure = Tenure(lease)
        self._apps = apps
        self._args = args
        self._look = look
        self._detach = detach
        self._own = own
        self._downloads = downloads
        self._wake = asyncio.Event()
        self._compared_at = float("-inf")
        self._registry = EMPTY
        self._is_calm = False
        self._proofs = Proofs(store, probe, self.wake)

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
        passed_s = time.monotonic() - self._compared_at
        is_at_rest = self._is_calm and all(one.phase == "unloaded" for one in models)
        if is_at_rest and passed_s < REST_PERIOD_S:
            return
        if await self._tenure.begins():
            self._is_calm = False
        if not await self._tenure.holds():
            self._downloads.forget(but=set())
            return
        if any(one.retire_at is not None and one.retire_at <= time.time() for one in models):
            for state in await asyncio.to_thread(self._store.unload_retired, time.time()):
                log.info("%s is unloaded: no alias names it any more", state.id)
            await self._read()
        if passed_s >= CALM_PERIOD_S or not self._is_calm:
            self._is_calm = await self._compare(self._registry)
            self._compared_at = time.monotonic()

    async def _read(self) -> None:
        """Take over the newest registry; what is new is to be compared."""
        if await asyncio.to_thread(self._store.revision) != self._registry.revision:
            self._registry = await asyncio.to_thread(self._store.read)
            self._is_calm = False

    async def _compare(self, registry: Registry) -> bool:
        """Take a step for every model that differs; return whether nothing is left to do."""
        reports = await self._apps.reports()
        is_calm = True
        for state in registry.models.values():
            if not await self._tenure.holds():
                return False
            try:
                if state.spec.base:
                    is_calm &= await self._settle_adapter(state, registry)
                else:
                    is_calm &= await self._settle(state, reports.get(app_name(state)))
            except RagError:  # of the database or the controller, which every model needs
                raise
            except Exception:  # whatever it is, the other models must get their step
                is_calm = False
                log.exception("%s could not be compared with what runs", state.id)
        wanted = {app_name(state) for state in registry.models.values()}
        loading = (one for one in registry.models.values() if one.phase == "loading")
        names = {app_name(state) for state in loading}
        self._proofs.forget(but=names)
        self._downloads.forget(but=names)
        strays = {name for name, one in reports.items() if not one.is_going} - wanted
        return is_calm and not (strays and await self._delete_strays(strays))

    async def _delete_strays(self, strays: set[str]) -> bool:
        """Delete applications of no model; a row is older than its application, so it is seen."""
        registry = await asyncio.to_thread(self._store.read)
        strays -= {app_name(state) for state in registry.models.values()}
        for name in sorted(strays):
            log.warning("application %s belongs to no model; it is deleted", name)
            await self._apps.delete(name)
        return bool(strays)

    async def _settle(self, state: ModelState, report: AppReport | None) -> bool:
        """Take one step for a model; return whether there is none to take."""
        if state.phase == "loading":
            await self._load(state, report)
            return False
        if state.phase == "ready":
            if report is not None and not (report.is_going or report.has_failed):
                return True
            log.warning("%s should run and does not; it is loaded again", state.id)
            if await self._advance(state, "loading") and report is not None and report.has_failed:
                await self._apps.delete(app_name(state))  # Serve has given it up for good
            return False
        if state.phase == "unloading":
            await self._unload(state, report)
            return False
        if report is not None and not report.is_going:
            await self._apps.delete(app_name(state))
        return report is None

    async def _settle_adapter(self, state: ModelState, registry: Registry) -> bool:
        """Take one step for an adapter, which has no application but its base's; as `_settle`."""
        base = registry.models.get(state.spec.base)
        has_base = base.phase == "ready" if base else state.spec.base in self._own
        if state.phase == "loading":
            if has_base:
                await self._load_adapter(state, base.changed_at if base else 0.0)
            elif base is None or base.phase not in LOADED:
                await self._advance(state, "failed", "the adapter's base is not loaded")
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

    async def _load_adapter(self, state: ModelState, base_since: float) -> None:
        if self._proofs.waited_s(state, base_since) > self._args.start_timeout_s:
            error = self._proofs.last_error(state) or "its base did not answer with it in time"
            await self._advance(state, "failed", error)
        elif (wrong := self._proofs.prove(state)) is not None:
            await self._advance(state, "failed", wrong.message)

    async def _load(self, state: ModelState, report: AppReport | None) -> None:
        if is_awaited(state.spec):
            await self._download(state)
            return
        waited_s = self._proofs.waited_s(state)
        if report is not None and report.has_failed:
            await self._fail(state, report.error or CANNOT_START)
        elif waited_s > self._args.start_timeout_s:
            await self._fail(state, (report.error if report else "") or self._too_slow(state))
        elif report is None or report.is_going:
            await self._deploy(state)
        elif report.is_running:
            self._proofs.prove(state)
        else:
            progress = await asyncio.to_thread(self._look, state, report)
            await asyncio.to_thread(self._store.note_progress, state, progress)

    async def _download(self, state: ModelState) -> None:
        """Look at a load's download; it is no slow start, however long it takes."""
        try:
            spec = self._downloads.look(state)
        except RagError as error:
            await self._fail(state, error.message)
            return
        if spec is None:
            progress = self._downloads.progress(state)
            await asyncio.to_thread(self._store.note_progress, state, progress)
        elif await asyncio.to_thread(self._store.settle, state, spec):
            self.wake()

    async def _deploy(self, state: ModelState) -> None:
        try:
            await self._apps.deploy(state)
        except InvalidRequest as error:
            await self._fail(state, error.message)
        except StoreUnavailable as error:  # of this application perhaps; the others have their turn
            log.warning("%s is not deployed yet: %s", state.id, error.message)

    async def _fail(self, state: ModelState, error: str) -> None:
        if await self._advance(state, "failed", error):
            log.error("%s could not be loaded: %s", state.id, error)
            await self._apps.delete(app_name(state))

    def _too_slow(self, state: ModelState) -> str:
        why = self._proofs.last_error(state)
        text = f"it did not answer within {self._args.start_timeout_s:g} s"
        return f"{text}: {why}" if why else text

    async def _unload(self, state: ModelState, report: AppReport | None) -> None:
        """Delete the application once no ingress sends it requests; those it has are finished."""
        if report is None:
            await self._advance(state, "unloaded")
        elif not report.is_going and time.time() - state.changed_at >= REROUTE_S:
            await self._apps.delete(app_name(state))

    async def _advance(self, state: ModelState, phase: ModelPhase, error: str = "") -> bool:
        """Return whether the model was still as `state` says, and is in the next phase now."""
        is_done = await asyncio.to_thread(self._store.advance, state, phase, error=error)
        self.wake()
        return is_done
