"""Events on the wire."""

from typing import Any

import msgpack
import pytest

from deployments.delivery.frames import event_of, packed, unpacker
from deployments.types import Delta, Finished, PromptAccepted, TokenLogprob

TOP = TokenLogprob(9, b"\xff\xfe", -2.5)
EVENTS = [
    PromptAccepted(12, 3),
    Delta("", 0),
    Delta("naïve 你好 \U0001f600 \u2028", 3),
    Delta("x", 1, (TokenLogprob(7, b"x", -0.1, (TOP, TOP)), TokenLogprob(8, b"", -0.2))),
    Finished("length", 4096, 2),
]


def test_events_come_out_as_they_went_in_however_they_are_cut() -> None:
    data = b"".join(packed(number, event) for number, event in enumerate(EVENTS))
    decoder, found = unpacker(), []
    for at in range(len(data)):
        decoder.feed(data[at : at + 1])
        found += [(fields[0], event_of(fields)) for fields in decoder]
    assert found == list(enumerate(EVENTS))


@pytest.mark.parametrize("fields", [(1, 9, "x"), (1,), (1, 0), (1, 0, "x", 0, ((1,),)), (1, 2)])
def test_what_is_no_event_is_refused(fields: Any) -> None:
    with pytest.raises((ValueError, TypeError, LookupError)):
        event_of(fields)


def test_endless_event_is_refused() -> None:
    decoder = unpacker()
    start = msgpack.packb((1, 0, "x" * 1000))[:500]
    decoder.feed(start)
    for _ in range(15):
        decoder.feed(b"x" * 1024 * 1024)
    with pytest.raises(msgpack.exceptions.BufferFull):
        decoder.feed(b"x" * 1024 * 1024)
