"""How fine-tunings are, as the API shows it."""

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel

from deployments.engines.inspection.source import ADAPTER, TUNED
from deployments.types import TuningPhase, TuningState


class LossPoint(BaseModel):
    """The mean loss per token of one step's examples."""

    step: int
    loss: float


class TuningReport(BaseModel):
    """How far a tuning is; `seconds` are those that workers ran."""

    step: int
    steps: int
    seconds: float
    curve: list[LossPoint]


class TuningEvaluation(BaseModel):
    """The held-back examples' mean loss per token; null: not evaluated yet."""

    num_examples: int
    loss_before: float | None
    loss_after: float | None


class TuningInfo(BaseModel):
    """A tuning; once completed, `adapter` and `source` are what `POST /v1/models/load` takes.

    `source` is null where no merged weights were asked for.
    """

    id: str
    object: Literal["model.tuning"]
    status: TuningPhase
    error: str | None
    model_id: str
    base: str
    adapter: str | None
    source: str | None
    device: str
    precision: str
    zero_stage: int
    workers: int
    memory_bytes: int
    num_examples: int
    num_tokens: int
    attempts: int
    progress: TuningReport
    evaluation: TuningEvaluation
    created_at: str
    started_at: str | None
    completed_at: str | None


class TuningList(BaseModel):
    """A page of tunings, the newest first."""

    object: Literal["list"]
    data: list[TuningInfo]
    has_more: bool


def tuning_of(state: TuningState) -> TuningInfo:
    """Return a tuning as the API shows it."""
    spec, progress = state.spec, state.progress
    made, is_made = f"{TUNED}{spec.id}", state.phase == "completed"
    return TuningInfo(
        id=state.id,
        object="model.tuning",
        status=state.phase,
        error=state.error or None,
        model_id=spec.id,
        base=spec.base,
        adapter=f"{made}/{ADAPTER}" if is_made else None,
        source=made if is_made and spec.is_merged else None,
        device=spec.device,
        precision=spec.precision,
        zero_stage=spec.training.zero_stage,
        workers=spec.training.workers,
        memory_bytes=spec.memory_bytes,
        num_examples=spec.num_examples,
        num_tokens=spec.num_tokens,
        attempts=state.attempt,
        progress=TuningReport(
            step=progress.step,
            steps=spec.num_steps,
            seconds=progress.seconds,
            curve=[LossPoint(step=one.step, loss=one.loss) for one in progress.curve],
        ),
        evaluation=TuningEvaluation(
            num_examples=spec.num_evaluated,
            loss_before=progress.loss_before,
            loss_after=progress.loss_after,
        ),
        created_at=_time(state.created_at) or "",
        started_at=_time(state.started_at),
        completed_at=_time(state.completed_at),
    )


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
