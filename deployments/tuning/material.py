"""The examples of one tuning as its workers take them: encoded, in one file."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deployments.tuning.encoding import Encoded


@dataclass(frozen=True, slots=True)
class Material:
    """What is trained on, and what is held back."""

    examples: tuple[Encoded, ...]
    evaluation: tuple[Encoded, ...]

    @property
    def num_tokens(self) -> int:
        """Return the tokens of an epoch."""
        return sum(len(one.tokens) for one in self.examples)


def write_material(path: Path, material: Material) -> None:
    """Write the examples for their owner only, whole and on the disk when this returns."""
    value = {
        "examples": [[one.tokens, one.labels] for one in material.examples],
        "evaluation": [[one.tokens, one.labels] for one in material.evaluation],
    }
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def read_material(path: Path) -> Material:
    """Return the examples that were written."""
    value = json.loads(path.read_text(encoding="utf-8"))
    return Material(_sequences(value["examples"]), _sequences(value["evaluation"]))


def _sequences(rows: Sequence[Sequence[Sequence[int]]]) -> tuple[Encoded, ...]:
    return tuple(Encoded(tuple(tokens), tuple(labels)) for tokens, labels in rows)
