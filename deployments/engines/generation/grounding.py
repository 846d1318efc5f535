"""Puts retrieved passages before the question. It knows no tokens and no search."""

import re
from collections.abc import Sequence
from dataclasses import replace

from deployments.errors import InvalidRequest
from deployments.types import Grounding, Message

FIELD = re.compile(r"\{(passages|question)\}")

FENCE = re.compile(r"<\s*(/?)\s*passages\s*>", re.IGNORECASE)
"""What a template puts around the passages; a passage that holds it could end its own fence."""


def ground(
    messages: Sequence[Message], grounding: Grounding, num_passages: int
) -> tuple[Message, ...]:
    """Return the chat with its last user message in the template, after the best passages.

    Passages and question are data: braces in them are not fields, and no passage leaves its fence.

    Raises:
        InvalidRequest: there is no user message to ground.
    """
    last = max((i for i, m in enumerate(messages) if m.role == "user"), default=None)
    if last is None:
        refused = InvalidRequest("retrieval needs a message of the user")
        refused.param = "messages"
        raise refused
    values = {
        "passages": _listed([_fenced(one) for one in grounding.passages[:num_passages]]),
        "question": messages[last].content,
    }
    content = FIELD.sub(lambda match: values[match[1]], grounding.template)
    return (*messages[:last], replace(messages[last], content=content), *messages[last + 1 :])


def _fenced(passage: str) -> str:
    return FENCE.sub(r"‹\1passages›", passage)


def _listed(passages: Sequence[str]) -> str:
    """Number the passages, the best one last: a small model heeds what is near the question.

    One alone stays as it is, a number would only distract.
    """
    if len(passages) == 1:
        return passages[0]
    numbered = [f"[{i}] {text}" for i, text in enumerate(passages, start=1)]
    return "\n\n".join(reversed(numbered))
