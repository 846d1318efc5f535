"""What is on the wire: msgpack arrays, one for each event, `[subscription, kind, ...]`.

No pickle: whoever found the port and the secret could still only send events.
"""

from collections.abc import Callable
from typing import Any

import msgpack

from deployments.types import Delta, Finished, GenerationEvent, PromptAccepted, TokenLogprob

MAX_FRAME_BYTES = 16 * 1024 * 1024
"""Most that a peer may send without completing an event; one event is some hundred bytes."""

Fields = tuple[Any, ...]


def packed(subscription: int, event: GenerationEvent) -> bytes:
    """Return one event of a subscription."""
    if isinstance(event, Delta):
        logprobs = [_logprob_fields(entry) for entry in event.logprobs]
        fields: Fields = (subscription, 0, event.text, event.index, logprobs)
    elif isinstance(event, Finished):
        fields = (subscription, 1, event.finish_reason, event.completion_tokens, event.index)
    else:
        fields = (subscription, 2, event.prompt_tokens, event.num_passages)
    return msgpack.packb(fields)  # type: ignore[no-any-return]


def unpacker() -> "msgpack.Unpacker":
    """Return a decoder to `feed`; iterating it gives the fields of the complete events."""
    return msgpack.Unpacker(use_list=False, max_buffer_size=MAX_FRAME_BYTES)


def event_of(fields: Fields) -> GenerationEvent:
    """Return the event; raises ValueError, TypeError or IndexError for what is none."""
    return _EVENTS[fields[1]](*fields[2:])


def _logprob_fields(entry: TokenLogprob) -> Fields:
    top = [_logprob_fields(other) for other in entry.top]
    return (entry.token_id, entry.token, entry.logprob, top)


def _logprob(token_id: int, token: bytes, logprob: float, top: tuple[Fields, ...]) -> TokenLogprob:
    return TokenLogprob(token_id, token, logprob, tuple(_logprob(*fields) for fields in top))


def _delta(text: str, index: int, logprobs: tuple[Fields, ...]) -> Delta:
    return Delta(text, index, tuple(_logprob(*fields) for fields in logprobs))


_EVENTS: tuple[Callable[..., GenerationEvent], ...] = (_delta, Finished, PromptAccepted)
