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
from deployments.stores.tunings import TuningStore
from deployments.types import CurvePoint, TuningProgress, TuningState, thinned
from graphs.tuning_gang import Gang

NOTE_S = 1.0
CARD = "tuning.json"


class Superseded(Exception):
    """The tuning was cancelled, or another process goes on with it."""


class Diverged(Exception):
    """The training came to nothing, and would again; the first argument says how."""


class Run:
    """Trains, evaluates, writes and publishes; every step may be done again."""

    def __init__(self, state: TuningState, store: TuningStore, gang: Gang, folder: Path) -> None:
        """Take an attempt that has begun.

        Args:
            state: as `TuningStore.begin` returned it.
            store: where progress is noted.
            gang: workers that are not started yet.
            folder: the tuning's own.
        """
        self._state, self._store, self._gang, self._folder = state, store, gang, folder
        self._progress = state.progress
        self._started_at = time.monotonic()
        self._noted_at = float("-inf")

    async def run(self, target: Path) -> None:
        """Do all of it, and put the version's folder at `target`.

        Raises:
            EngineFailed: a worker died or failed; another attempt goes on.
            Diverged: another attempt would fail as well.
        Superseded: nobody wants this attempt any more.
        """
        step = await self._gang.start()
        await self._resume(step)
        spec = self._state.spec
        while step < spec.num_steps:
            loss = await self._gang.step()
            if not math.isfinite(loss):
                raise Diverged("the loss is no number any more: try a smaller learning_rate")
            step += 1
            await self._note(step, loss)
            if step % spec.training.checkpoint_steps == 0 and step < spec.num_steps:
                await self._write_down()  # first: else a kill loses the curve up to here
                await self._gang.save()
        await self._evaluate()
        await self._write(target)

    async def _resume(self, step: int) -> None:
        """Forget what came after the checkpoint; evaluate the base, if that was not done."""
        curve = tuple(point for point in self._progress.curve if point.step <= step)
        self._progress = dataclasses.replace(self._progress, step=step, curve=curve)
        if self._progress.loss_before is None:
            before = await self._gang.evaluate(is_base=True)
            self._progress = dataclasses.replace(self._progress, loss_before=before)
        await self._write_down()

    async def _note(self, step: int, loss: float) -> None:
        curve = thinned((*self._progress.curve, CurvePoint(step, round(loss, 6))))
        self._progress = dataclasses.replace(self._progress, step=step, curve=curve)
        if time.monotonic() - self._noted_at >= NOTE_S:
            await self._write_down()

    async def _evaluate(self) -> None:
        loss = await self._gang.evaluate(is_base=False)
        if not math.isfinite(loss):
            raise Diverged("the tuned model's loss is no number: try a smaller learning_rate")
        self._progress = dataclasses.replace(self._progress, loss_after=loss)
        await self._write_down()

    async def _write(self, target: Path) -> None:
        """Write what was trained beside its place, then give it its name."""
        part = self._folder / "result"
        await asyncio.to_thread(shutil.rmtree, part, ignore_errors=True)
        await self._gang.write(part / ADAPTER)
        if self._state.spec.is_merged:
            await self._gang.merge(part / ADAPTER, part / MERGED)
        await self._write_down()
        await asyncio.to_thread(publish, part, target, card_of(self._state, self._progress))

    async def _write_down(self) -> None:
        self._noted_at = time.monotonic()
        seconds = self._state.progress.seconds + self._noted_at - self._started_at
        self._progress = dataclasses.replace(self._progress, seconds=round(seconds, 2))
        if not await asyncio.to_thread(self._store.note, self._state, self._progress):
            raise Superseded


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
