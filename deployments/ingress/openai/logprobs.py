"""Log-probabilities in the two shapes of the OpenAI API."""

from collections.abc import Sequence
from typing import Any

from deployments.types import TokenLogprob

LEAST_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON cannot say. Source: OpenAI's API reference."""


def chat_logprobs(logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Return the `logprobs` of a chat choice."""
    content = [
        {**_entry(item), "top_logprobs": [_entry(other) for other in item.top]} for item in logprobs
    ]
    return {"content": content, "refusal": None}


def legacy_logprobs(logprobs: Sequence[TokenLogprob], offset: int = 0) -> dict[str, Any]:
    """Return the `logprobs` of a text completion; offsets count from the choice's first character.

    Args:
        logprobs: of consecutive tokens.
        offset: how many characters came before them.
    """
    tokens = [_text(item) for item in logprobs]
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    return {
        "tokens": tokens,
        "token_logprobs": [_bounded(item) for item in logprobs],
        "top_logprobs": [{_text(o): _bounded(o) for o in item.top} for item in logprobs],
        "text_offset": offsets,
    }


def _entry(item: TokenLogprob) -> dict[str, Any]:
    return {"token": _text(item), "logprob": _bounded(item), "bytes": list(item.token)}


def _text(item: TokenLogprob) -> str:
    return item.token.decode("utf-8", "replace")


def _bounded(item: TokenLogprob) -> float:
    return max(item.logprob, LEAST_LOGPROB)
