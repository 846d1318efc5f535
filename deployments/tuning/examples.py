"""JSON Lines become examples, line by line: every bad one is told with its number and why.

It does not know tokens (``encoding.py``), and says nothing of what a line holds.
"""

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

from deployments.errors import InvalidRequest
from deployments.types import BadLine, Example, TuningOrder

MAX_LINES = 100_000
MAX_LINE_BYTES = 256 * 1024
MAX_TURNS = 256
MAX_TOLD = 50
"""Bad lines that an error names; of more it says how many."""

EXAMPLES, EVALUATION = "examples", "evaluation"
ROLES = ("system", "user", "assistant")
NAMES = {"developer": "system"}


def read_order(order: TuningOrder) -> tuple[list[Example], list[Example]]:
    """Return the examples to train on, and those held back; raises InvalidRequest."""
    examples = read_examples(order.examples, EXAMPLES)
    if order.evaluation:
        return examples, read_examples(order.evaluation, EVALUATION)
    return held_back(examples, order.evaluation_share, order.training.seed)


def read_examples(data: bytes, param: str) -> list[Example]:
    """Return the examples of JSON Lines; empty lines are passed over.

    Args:
        data: UTF-8, one object a line: `messages`, or `prompt` and `completion`.
        param: what errors call it.

    Raises:
        InvalidRequest: there is none, there are too many, or lines are bad; it names those.
    """
    lines = data.rstrip(b"\n").split(b"\n")
    if len(lines) > MAX_LINES:
        raise refused(f"there are more than {MAX_LINES} lines", param)
    examples, bad = list[Example](), list[BadLine]()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            examples.append(example_of(line, number))
        except ValueError as error:
            bad.append(BadLine(number, str(error)))
    if bad:
        raise refused_lines(bad, param)
    if not examples:
        raise refused("there are no examples", param)
    return examples


def example_of(line: bytes, number: int) -> Example:
    """Return the example on a line; raises ValueError that says what is wrong with it."""
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"longer than {MAX_LINE_BYTES} bytes")
    value = _parsed(line)
    if "messages" in value:
        _check_fields(value, {"messages"})
        return Example(number, messages=_messages(value["messages"]))
    _check_fields(value, {"prompt", "completion"})
    prompt, completion = (_text(value, name) for name in ("prompt", "completion"))
    if not completion.strip():
        raise ValueError("`completion` is empty")
    return Example(number, prompt=prompt, completion=completion)


def held_back(
    examples: Sequence[Example], share: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """Return the examples to train on, and those held back: at least one, chosen by the seed.

    Raises:
        InvalidRequest: there is only one example.
    """
    if len(examples) < 2:
        raise refused("one example cannot be trained on and held back", "examples")
    number = min(max(1, round(share * len(examples))), len(examples) - 1)
    chosen = set(random.Random(seed).sample(range(len(examples)), number))  # noqa: S311
    kept = [one for place, one in enumerate(examples) if place not in chosen]
    return kept, [one for place, one in enumerate(examples) if place in chosen]


def refused_lines(bad: Sequence[BadLine], param: str) -> InvalidRequest:
    """Return the error that names bad lines, each with its reason."""
    told = [f"line {one.line}: {one.reason}" for one in bad[:MAX_TOLD]]
    if len(bad) > MAX_TOLD:
        told.append(f"and {len(bad) - MAX_TOLD} more")
    lines = "1 line is" if len(bad) == 1 else f"{len(bad)} lines are"
    return refused(f"{lines} bad: {'; '.join(told)}", param)


def refused(message: str, param: str) -> InvalidRequest:
    """Return the error for what cannot be trained on."""
    error = InvalidRequest(message)
    error.param = param
    return error


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _check_fields(value: Mapping[str, Any], known: set[str]) -> None:
    if missing := known - value.keys():
        raise ValueError(f"`{sorted(missing)[0]}` is missing")
    if value.keys() - known:
        raise ValueError(f"has other fields than {' and '.join(f'`{one}`' for one in known)}")


def _text(value: Mapping[str, Any], name: str) -> str:
    text = value[name]
    if not isinstance(text, str):
        raise ValueError(f"`{name}` is no text")
    return text


def _messages(value: Any) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("`messages` is no list of turns")
    if len(value) > MAX_TURNS:
        raise ValueError(f"has more than {MAX_TURNS} turns")
    turns = tuple(_turn(one) for one in value)
    if turns[-1]["role"] != "assistant":
        raise ValueError("does not end with the assistant")
    if any(one["role"] == "assistant" and not one["content"].strip() for one in turns):
        raise ValueError("the assistant says nothing")
    return turns


def _turn(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("a turn is no object")
    _check_fields(value, {"role", "content"})
    role = NAMES.get(str(value["role"]), value["role"])
    if role not in ROLES:
        raise ValueError("a turn's `role` is none of system, user and assistant")
    return {"role": role, "content": _text(value, "content")}
