"""What was sent becomes what workers train on: lines checked, encoded, divided, written."""

from dataclasses import dataclass
from pathlib import Path

from deployments.config import GeneratorArgs
from deployments.engines.generation.transformers.loading import read_tokenizer
from deployments.errors import EngineFailed, UnreadableModel
from deployments.tuning.encoding import Encoder
from deployments.tuning.examples import (
    EVALUATION,
    EXAMPLES,
    read_order,
    refused,
    refused_lines,
)
from deployments.tuning.material import Material, write_material
from deployments.types import TuningOrder


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the examples are, in numbers; `num_tokens` are those of an epoch."""

    num_examples: int
    num_evaluated: int
    num_tokens: int
    longest: int


def prepare(order: TuningOrder, location: str, path: Path) -> Prepared:
    """Write the material of a tuning. Loads the base's tokenizer: for a process of its own.

    Raises:
        InvalidRequest: lines are bad; it names each one and why.
        UnreadableModel: the base's tokenizer cannot be loaded.
    """
    examples, evaluation = read_order(order)
    try:
        encoder = Encoder(read_tokenizer(GeneratorArgs(source=location)))
    except (EngineFailed, OSError, ValueError, KeyError) as error:
        raise UnreadableModel("the base's tokenizer cannot be loaded") from error
    longest = order.training.max_tokens
    trained, bad = encoder.encode_all(examples, longest)
    held, bad_held = encoder.encode_all(evaluation, longest)
    if not order.evaluation:
        bad, bad_held = sorted([*bad, *bad_held], key=lambda one: one.line), []
    for found, lines, param in ((trained, bad, EXAMPLES), (held, bad_held, EVALUATION)):
        if lines:
            raise refused_lines(lines, param)
        if not any(one.num_learned for one in found):
            raise refused("nothing of the examples is learned", param)
    material = Material(tuple(trained), tuple(held))
    write_material(path, material)
    return Prepared(
        num_examples=len(material.examples),
        num_evaluated=len(material.evaluation),
        num_tokens=material.num_tokens,
        longest=max(len(one.tokens) for one in (*material.examples, *material.evaluation)),
    )
