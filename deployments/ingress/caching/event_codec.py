"""The events of an answer as bytes, and back."""

from typing import Any

import orjson

from deployments.types import (
    AnswerEvent,
    Delta,
    Finished,
    Passage,
    PromptAccepted,
    ScoredChunk,
    Sources,
    TokenLogprob,
)

VERSION = 1
"""Of the form below: what an older release has kept is not read."""


def encoded(events: list[AnswerEvent]) -> bytes:
    """Return events as JSON."""
    return orjson.dumps([VERSION, [_row(event) for event in events]])


def decoded(data: bytes) -> list[AnswerEvent] | None:
    """Return the events; None: of another version."""
    version, rows = orjson.loads(data)
    return [_event(row) for row in rows] if version == VERSION else None


def _row(event: AnswerEvent) -> list[Any]:
    match event:
        case Delta(text, index, logprobs):
            return ["delta", text, index, [_logprob_row(one) for one in logprobs]]
        case Finished(finish_reason, completion_tokens, index):
            return ["finished", finish_reason, completion_tokens, index]
        case PromptAccepted(prompt_tokens, num_passages, model):
            return ["accepted", prompt_tokens, num_passages, model]
        case Sources(chunks):
            return ["sources", chunks]


def _event(row: list[Any]) -> AnswerEvent:
    kind, *values = row
    if kind == "delta":
        text, index, logprobs = values
        return Delta(text, index, tuple(map(_logprob, logprobs)))
    if kind == "finished":
        return Finished(*values)
    if kind == "accepted":
        return PromptAccepted(*values)
    return Sources(tuple(map(_chunk, values[0])))


def _logprob_row(one: TokenLogprob) -> list[Any]:
    return [one.token_id, one.token.hex(), one.logprob, [_logprob_row(other) for other in one.top]]


def _logprob(row: list[Any]) -> TokenLogprob:
    token_id, token, logprob, top = row
    return TokenLogprob(token_id, bytes.fromhex(token), logprob, tuple(map(_logprob, top)))


def _chunk(given: dict[str, Any]) -> ScoredChunk:
    passages = {
        name: tuple(Passage(**passage) for passage in given[name]) for name in ("before", "after")
    }
    highlights = tuple((start, end) for start, end in given["highlights"])
    return ScoredChunk(**{**given, **passages, "highlights": highlights})
