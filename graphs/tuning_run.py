"""One attempt at a tuning, from its newest checkpoint to the evaluated version in its place.

A version's folder gets its name after its evaluation and not before: what can be loaded was
evaluated. It does not know who may run (``tuning.py``).
"""

import asyncio
import dataclasses
import json
import math
import shutil
import time
from pathlib import Path

from deployments.engines.inspection.source import ADAPTER, MERGED
from deployments.errors import EngineFailed
from deployments.stores.tunings import TuningStore
from deployments.types import TuningPlan, TuningProgress, TuningState
from graphs.tuning_gang import Gang

CARD = "tuning.json"


class Superseded(Exception):
    """The tuning was cancelled, or another process goes on with it."""


class Diverged(Exception):
    """The training came to nothing, and would again; the first argument says how."""


class Run:
    """Notes what the workers tell, and publishes what they made; all may be done again."""

    def __init__(self, state: TuningState, store: TuningStore, gang: Gang, folder: Path) -> None:
        """Take an attempt that has begun.

        Args:
            state: as `TuningStore.begin` returned it.
            store: where progress is noted.
            gang: workers that are not started yet.
            folder: the tuning's own.
        """
        self._state, self._store, self._gang, self._folder = state, store, gang, folder
        self._progress = dataclasses.replace(state.progress, loss_after=None)
        self._started_at = time.monotonic()

    async def run(self, target: Path) -> None:
        """Do all of it, and put the version's folder at `target`.

        Raises:
            EngineFailed: a worker died or failed; another attempt goes on.
            Diverged: another attempt would fail as well.
            Superseded: nobody wants this attempt any more.
        """
        part = self._folder / f"result-{self._state.attempt}"
        plan = TuningPlan(
            spec=self._state.spec,
            folder=self._folder,
            adapter=part / ADAPTER,
            attempt=self._state.attempt,
            loss_before=self._progress.loss_before,
        )
        async for told in self._gang.reports(plan):
            check(told)
            self._progress = told
            await self._write_down()
        if self._progress.loss_after is None:
            raise EngineFailed("the workers ended before the training did")
        if plan.spec.is_merged:
            await self._gang.merge(plan, part / MERGED)
        await self._write_down()
        await asyncio.to_thread(publish, part, target, card_of(self._state, self._progress))

    async def _write_down(self) -> None:
        seconds = self._state.progress.seconds + time.monotonic() - self._started_at
        self._progress = dataclasses.replace(self._progress, seconds=round(seconds, 2))
        if not await asyncio.to_thread(self._store.note, self._state, self._progress):
            raise Superseded


def check(told: TuningProgress) -> None:
    """Raise Diverged if a loss is no number."""
    if told.curve and not math.isfinite(told.curve[-1].loss):
        raise Diverged("the loss is no number any more: try a smaller learning_rate")
    if told.loss_after is not None and not math.isfinite(told.loss_after):
        raise Diverged("the tuned model's loss is no number: try a smaller learning_rate")


def card_of(state: TuningState, progress: TuningProgress) -> str:
    """Return what a version is made of, as JSON; no path is in it."""
    spec = state.spec
    card = {
        "id": spec.id,
        "tuning": state.id,
        "base": spec.base,
        "training": dataclasses.asdict(spec.training),
        "num_examples": spec.num_examples,
        "num_evaluated": spec.num_evaluated,
        "loss_before": progress.loss_before,
        "loss_after": progress.loss_after,
    }
    return json.dumps(card, indent=2)


def publish(part: Path, target: Path, card: str) -> None:
    """Give a finished folder its name; one that a killed attempt left there goes."""
    (part / CARD).write_text(card, encoding="utf-8")
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)


def discard(folder: Path) -> None:
    """Remove a tuning's own folder: examples and checkpoints."""
    shutil.rmtree(folder, ignore_errors=True)
