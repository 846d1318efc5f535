"""Identifiers that the ingress gives out: a prefix and a UUIDv7, so that they sort by time."""

from uuid_utils import uuid7


def new_id(prefix: str) -> str:
    """Return a fresh id, such as `req_0198c0de…`."""
    return f"{prefix}_{uuid7().hex}"


def derived_id(prefix: str, request_id: str) -> str:
    """Return another kind of id with the same UUID, so that answers can be traced to requests."""
    return f"{prefix}-{request_id.partition('_')[2]}"
