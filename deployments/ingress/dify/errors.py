"""Dify's own form of an error, for every failure below `/dify/`.

Dify turns what is no 200 into an empty list without telling anybody, so each one is logged here.
"""

import logging

import orjson

from deployments.errors import CollectionNotFound, RagError, Unauthenticated
from deployments.ingress.auth import NoBearer
from deployments.ingress.errors import Headers, error_headers

log = logging.getLogger("ray.serve")

PREFIX = "/dify/"

BAD_HEADER = 1001
BAD_KEY = 1002
NO_KNOWLEDGE = 2001


def is_dify(path: str) -> bool:
    """Return whether Dify asks."""
    return path.startswith(PREFIX)


def dify_error(error: RagError, request_id: str | None) -> tuple[int, Headers, bytes]:
    """Return status, headers and body; a failure that Dify has no code for has its status as one.

    A key that is not valid is a 403: Dify's registration knows that one, and not 401.
    """
    status = 403 if isinstance(error, Unauthenticated) else error.status
    code = _code(error, status)
    log.log(
        logging.ERROR if status >= 500 else logging.WARNING,
        "request %s of Dify failed with %d (%d, %s): %s; Dify shows its user no records",
        request_id,
        status,
        code,
        error.code,
        error.message,
    )
    body = orjson.dumps({"error_code": code, "error_msg": error.message})
    headers = [one for one in error_headers(error) if one[0] != b"www-authenticate"]
    return status, headers, body


def _code(error: RagError, status: int) -> int:
    if isinstance(error, NoBearer):
        return BAD_HEADER
    if isinstance(error, Unauthenticated):
        return BAD_KEY
    if isinstance(error, CollectionNotFound):
        return NO_KNOWLEDGE
    return status
