"""Identifiers and times: what every row is named by and stamped with."""

from datetime import UTC, datetime

import uuid_utils


def new_id(prefix: str) -> str:
    """Return `<prefix>_<32 hex digits>`: a UUIDv7, so ids sort by the time they were made."""
    return f"{prefix}_{uuid_utils.uuid7().hex}"


def utc_now() -> str:
    """Return the time as RFC 3339 in UTC with microseconds: a fixed width, so it sorts as text."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def microseconds(seconds: float) -> int:
    """Return a time as rows hold it where it is computed with."""
    return round(seconds * 1_000_000)
