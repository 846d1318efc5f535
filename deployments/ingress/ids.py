"""Identifiers of answers, which follow from the request's own."""


def derived_id(prefix: str, request_id: str) -> str:
    """Return another kind of id with the same UUID, so that answers can be traced to requests."""
    return f"{prefix}-{request_id.partition('_')[2]}"
