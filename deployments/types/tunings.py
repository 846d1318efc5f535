"""Fine-tunings: what is asked for, what is trained, and how far it is."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

TuningPhase = Literal["queued", "running", "cancelling", "completed", "failed", "cancelled"]
ZeroStage = Literal[2, 3]

UNDER_WAY: tuple[TuningPhase, ...] = ("queued", "running", "cancelling")
"""Phases of a tuning that still has something to do."""

MAX_CURVE = 256
"""Points that a loss curve has at most; of a longer one, every other goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How an adapter is trained; `targets` empty: every linear layer but the last.

    `batch_size` examples make a step, shared out over the workers. `checkpoint_steps` lie between
    two checkpoints.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: tuple[str, ...] = ()
    epochs: int = 3
    learning_rate: float = 2e-4
    batch_size: int = 8
    max_tokens: int = 1024
    seed: int = 0
    zero_stage: ZeroStage = 2
    workers: int = 1
    num_threads: int = 0
    checkpoint_steps: int = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningSpec:
    """What is trained, with nothing left to choose: the new version's id, its base, and how.

    `base` is as the caller said it, `location` what a worker reads. `memory_bytes` is the estimate
    for one worker. `num_steps` are those of the whole training.
    """

    name: str
    version: str
    base: str
    location: str
    training: Training
    device: str = "cpu"
    precision: str = "fp32"
    is_merged: bool = False
    num_examples: int = 0
    num_evaluated: int = 0
    num_tokens: int = 0
    num_steps: int = 0
    memory_bytes: int = 0

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "TuningSpec":
        """Return the spec of which `dataclasses.asdict` made these values, as JSON has them."""
        training = dict(values["training"])
        training["targets"] = tuple(training["targets"])
        return cls(**{**values, "training": Training(**training)})

    @property
    def id(self) -> str:
        """Return the id of the version that comes of it."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The mean loss per token of one step's examples, before the step."""

    step: int
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningProgress:
    """How far a tuning is; the losses before and after are those of the held-back examples.

    `seconds` are those that workers ran, over all attempts.
    """

    step: int = 0
    seconds: float = 0.0
    curve: tuple[CurvePoint, ...] = ()
    loss_before: float | None = None
    loss_after: float | None = None

    def values(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        curve = [[point.step, point.loss] for point in self.curve]
        return dataclasses.asdict(self) | {"curve": curve}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "TuningProgress":
        """Return what `values` gave."""
        curve = tuple(CurvePoint(*point) for point in values["curve"])
        return cls(**{**values, "curve": curve})


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningPlan:
    """One attempt at a training, as its workers take it.

    `folder` is the tuning's own. `attempt` is a number that no earlier attempt has, and
    `loss_before` the base's, if one of them found it. `adapter` is the folder to write.
    """

    spec: TuningSpec
    folder: Path
    adapter: Path
    attempt: int
    loss_before: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningState:
    """A tuning as the database has it; times are in seconds since 1970.

    `attempt` grows whenever workers are started: what is said of an earlier one is not heard.
    """

    id: str
    spec: TuningSpec
    phase: TuningPhase
    created_at: float
    attempt: int = 0
    error: str = ""
    started_at: float | None = None
    completed_at: float | None = None
    progress: TuningProgress = TuningProgress()


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningOrder:
    """What a tuning asks for; examples are JSON Lines, one line each.

    Without `evaluation`, `evaluation_share` of the examples are held back.
    """

    name: str
    version: str
    base: str
    examples: bytes = field(repr=False)
    evaluation: bytes = field(default=b"", repr=False)
    evaluation_share: float = 0.1
    training: Training = Training()
    device: str = "auto"
    is_merged: bool = False


@dataclass(frozen=True, slots=True)
class Example:
    """One checked line: turns of a chat, or a prompt and what should follow it."""

    line: int
    messages: tuple[Mapping[str, Any], ...] = ()
    prompt: str = ""
    completion: str = ""


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that cannot be trained on, counted from 1, and why."""

    line: int
    reason: str


def thinned(curve: tuple[CurvePoint, ...]) -> tuple[CurvePoint, ...]:
    """Return a curve with every other point, if it has grown too long; the last one stays."""
    return curve[(len(curve) - 1) % 2 :: 2] if len(curve) > MAX_CURVE else curve
