"""A lifecycle over a registry in a file and fake applications, moved on by passes."""

import asyncio
import dataclasses
from pathlib import Path

from deployments.config import ModelsArgs
from deployments.stores.leases import Lease
from deployments.types import LoadProgress, ModelPhase, ModelSpec, ModelState
from graphs import tenure
from graphs.downloads import Downloads
from graphs.lifecycle import Lifecycle
from graphs.serve_apps import AppReport
from tests.unit.graphs.registry import FakeApps, opened

OWN = {"own"}


class Bench:
    """A lifecycle over fake applications; every pass looks at everything."""

    def __init__(self, folder: Path, **args: float) -> None:
        self.database, self.store = opened(folder)
        self.apps = FakeApps()
        self.probed: list[str] = []
        self.probe_error: BaseException | None = None
        self.detached: list[str] = []
        self.detach_error: Exception | None = None
        lease = Lease(self.database, "models", tenure.LEASE_S)
        self.args = ModelsArgs(**args)  # type: ignore[arg-type]
        self.lifecycle = self.another(lease)

    def another(self, lease: Lease | None = None) -> Lifecycle:
        lease = lease or Lease(self.database, "models", tenure.LEASE_S)
        return Lifecycle(
            self.store,
            lease,
            self.apps,
            self.args,
            self._probe,
            self._look,
            self._detach,
            OWN,
            Downloads(self.args, self._settle),
        )

    async def _settle(self, state: ModelState, args: ModelsArgs) -> ModelSpec:
        return dataclasses.replace(state.spec, location="/here")

    async def _probe(self, state: ModelState) -> None:
        self.probed.append(state.id)
        if self.probe_error is not None:
            raise self.probe_error

    async def _detach(self, state: ModelState) -> None:
        if self.detach_error is not None:
            raise self.detach_error
        self.detached.append(state.id)

    def _look(self, state: ModelState, report: AppReport) -> LoadProgress:
        return LoadProgress(3, 7, 1.0)

    async def passes(self, number: int = 1) -> None:
        for _ in range(number):
            self.lifecycle._is_calm = False
            await self.lifecycle.step()
            await asyncio.sleep(0.01)
            await self.lifecycle._proofs.idle()

    def phase(self, model: str = "m@1") -> ModelPhase:
        return self.store.read().models[model].phase

    def error(self, model: str = "m@1") -> str:
        return self.store.read().models[model].error
