"""A streamed inference as Protobuf messages, each after its length."""

from typing import Any

from deployments.ingress.native.inference_stream import InferenceStream
from deployments.ingress.openai.logprobs import chat_logprobs
from deployments.ingress.proto.media import DELIMITED
from deployments.ingress.proto.messages import TextDelta
from deployments.ingress.proto.values import message_of
from deployments.types import Delta


class ProtobufStream(InferenceStream):
    """Encodes events as `TextDelta`."""

    media_type = DELIMITED
    ping = b"\x00"
    """An empty message."""

    def _block(self, kind: str, event: dict[str, Any]) -> bytes:
        inner = event[kind] if kind == "error" else event
        return delimited(message_of({kind: inner}, TextDelta).SerializeToString())

    def _delta(self, delta: Delta) -> bytes:
        event: dict[str, Any] = {"index": delta.index, "text": delta.text}
        if self._has_logprobs:
            event["logprobs"] = chat_logprobs(delta.logprobs)["content"]
        return self._block("delta", event)


def delimited(message: bytes) -> bytes:
    """Return a message after its length, which is a varint: seven bits a byte, low ones first."""
    head, rest = bytearray(), len(message)
    while rest > 127:
        head.append(rest & 127 | 128)
        rest >>= 7
    return bytes((*head, rest)) + message


class Splitter:
    """Takes such a stream in pieces, and gives its messages back."""

    def __init__(self) -> None:
        self._held = bytearray()

    def split(self, piece: bytes) -> list[bytes]:
        """Return the messages that a further piece makes whole."""
        self._held += piece
        messages: list[bytes] = []
        while (found := self._first()) is not None:
            start, end = found
            messages.append(bytes(self._held[start:end]))
            del self._held[:end]
        return messages

    def _first(self) -> tuple[int, int] | None:
        """Return where the first message begins and ends; None: it is not whole."""
        size = 0
        for position, byte in enumerate(self._held):
            size |= (byte & 127) << (7 * position)
            if byte < 128:
                end = position + 1 + size
                return (position + 1, end) if end <= len(self._held) else None
        return None
