"""Which form a failure takes on the wire: one object, but for clients that know only their own."""

from deployments.errors import RagError
from deployments.ingress.dify.errors import dify_error, is_dify
from deployments.ingress.errors import Headers, error_body, error_headers


def failure_of(error: RagError, request_id: str | None, path: str) -> tuple[int, Headers, bytes]:
    """Return status, headers and body of an error response to a request for `path`."""
    if is_dify(path):
        return dify_error(error, request_id)
    return error.status, error_headers(error), error_body(error, request_id)
