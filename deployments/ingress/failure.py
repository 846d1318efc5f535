"""Which form a failure takes on the wire: one object, but for clients that know only their own."""

from deployments.errors import RagError
from deployments.ingress.asgi import Scope, path_of
from deployments.ingress.dify.errors import dify_error, is_dify
from deployments.ingress.errors import Headers, error_body, error_headers
from deployments.ingress.proto.media import PROTOBUF, error_message, is_wanted


def failure_of(error: RagError, request_id: str | None, scope: Scope) -> tuple[int, Headers, bytes]:
    """Return status, headers and body of an error response to a request."""
    if is_dify(path_of(scope)):
        return dify_error(error, request_id)
    if is_wanted(scope):
        headers = error_headers(error, PROTOBUF)
        return error.status, headers, error_message(error, request_id)
    return error.status, error_headers(error), error_body(error, request_id)
