"""Identifiers and times: what every row is named by and stamped with."""

from datetime import UTC, datetime, timedelta

import uuid_utils

EPOCH = datetime.fromtimestamp(0, UTC)


def new_id(prefix: str) -> str:
    """Return `<prefix>_<32 hex digits>`: a UUIDv7, so ids sort by the time they were made."""
    return f"{prefix}_{uuid_utils.uuid7().hex}"


def utc_now() -> str:
    """Return the time as RFC 3339 in UTC with microseconds: a fixed width, so it sorts as text."""
    return utc_text(datetime.now(UTC))


def utc_after(seconds: float) -> str:
    """Return, as `utc_now`, the time that it will be."""
    return utc_text(datetime.now(UTC) + timedelta(seconds=seconds))


def utc_text(time: datetime) -> str:
    """Return a time as `utc_now` does.

    Raises:
        ValueError: the time has no offset, so nobody knows when it is.
    """
    if time.tzinfo is None:
        raise ValueError("a time without an offset")
    return f"{time.astimezone(UTC).isoformat(timespec='microseconds')[: -len('+00:00')]}Z"


def utc_of(time_us: int) -> str:
    """Return, as `utc_now`, a time in microseconds since 1970."""
    return utc_text(EPOCH + timedelta(microseconds=time_us))


def microseconds(seconds: float) -> int:
    """Return a time as rows hold it where it is computed with."""
    return round(seconds * 1_000_000)
