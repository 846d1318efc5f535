"""Who sends Protobuf, and who wants it back: the content type decides, and `Accept`."""

from typing import Any

from starlette.requests import Request

from deployments.errors import RagError
from deployments.ingress.asgi import Scope, header, path_of
from deployments.ingress.errors import error_object
from deployments.ingress.proto.messages import Error, SearchRequest, TextRequest
from deployments.ingress.proto.values import message_of, value_of
from deployments.stores.content import invalid

PROTOBUF = "application/x-protobuf"
DELIMITED = f"{PROTOBUF}; encoding=delimited"
"""A stream: each message after its length in bytes, which is a varint."""

IS_STREAMED = "ragserve.is_streamed"
"""In a gRPC call's scope: whether its method streams the answer; None: it is none that could."""

PATHS = {"/v1/inference": TextRequest, "/v1/data/search": SearchRequest}
"""Where Protobuf is spoken, and what a body is."""


def is_sent(scope: Scope) -> bool:
    """Return whether a request's body is Protobuf."""
    sent = header(scope, b"content-type").partition(";")[0].strip().lower()
    return sent == PROTOBUF and path_of(scope) in PATHS


def is_wanted(scope: Scope) -> bool:
    """Return whether the answer is to be Protobuf: as it says, or else as it was asked."""
    if IS_STREAMED in scope:
        return True
    if path_of(scope) not in PATHS:
        return False
    accepted = [one.partition(";")[0].strip() for one in header(scope, b"accept").split(",")]
    named = [one.lower() for one in accepted if one]
    if PROTOBUF in named:
        return True
    return is_sent(scope) and (not named or "*/*" in named or "application/*" in named)


async def read_value(request: Request, max_depth: int) -> dict[str, Any]:
    """Return the value of a Protobuf body; raises InvalidRequest."""
    value = value_of(await request.body(), PATHS[path_of(request.scope)], max_depth)
    is_streamed = request.scope.get(IS_STREAMED)
    if is_streamed is not None and value.setdefault("stream", is_streamed) != is_streamed:
        raise invalid("over gRPC the method says whether the answer is streamed", "stream")
    return value


def error_message(error: RagError, request_id: str | None) -> bytes:
    """Return the body of an error."""
    content: bytes = message_of(error_object(error, request_id), Error).SerializeToString()
    return content
