"""Which examples make which step on which worker, and their tensors.

Everything follows from the seed, so that every worker knows what all of them compute, and one that
starts again knows what was done.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from deployments.tuning.encoding import IGNORED, Encoded

EMPTY = Encoded((0, 0), (IGNORED, IGNORED))
"""What a worker computes that has no example in a step: nothing is learned of it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One worker's part of a step; `num_learned` counts the tokens of all workers.

    Tensors are int64[examples, tokens], filled up at the end.
    """

    tokens: torch.Tensor
    attention: torch.Tensor
    labels: torch.Tensor
    num_learned: int


def num_steps(num_examples: int, batch_size: int, epochs: int) -> int:
    """Return the steps of a training; an epoch's last one may be smaller."""
    return epochs * -(-num_examples // batch_size)


def chosen(step: int, num_examples: int, batch_size: int, seed: int) -> list[int]:
    """Return the examples of a step, counted from 0: every epoch has each one, shuffled anew."""
    epoch, place = divmod(step, -(-num_examples // batch_size))
    order = list(range(num_examples))
    random.Random(f"{seed}:{epoch}").shuffle(order)  # noqa: S311
    return order[place * batch_size : (place + 1) * batch_size]


def batch_of(examples: Sequence[Encoded], worker: int, num_workers: int) -> Batch:
    """Return a worker's part of a step's examples, as even as can be."""
    longest_first = sorted(examples, key=lambda one: -len(one.tokens))
    own = longest_first[worker::num_workers] or [EMPTY]
    width = max(len(one.tokens) for one in own)
    return Batch(
        tokens=_filled([one.tokens for one in own], width, 0),
        attention=_filled([(1,) * len(one.tokens) for one in own], width, 0),
        labels=_filled([one.labels for one in own], width, IGNORED),
        num_learned=sum(one.num_learned for one in examples),
    )


def _filled(rows: Sequence[tuple[int, ...]], width: int, filler: int) -> torch.Tensor:
    return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows])


def learning_rate(step: int, steps: int, highest: float) -> float:
    """Return the rate of a step: it rises over the first 5 %, then falls to nothing in a line."""
    warm = max(1, steps // 20)
    if step < warm:
        return highest * (step + 1) / warm
    return highest * (steps - step) / max(1, steps - warm)
