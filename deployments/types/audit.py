"""What is remembered of every call: who, what, when, from where, how it ended, and what it cost."""

from dataclasses import dataclass
from typing import Literal

INTENT = 0
"""The status of a record that says what is about to be done."""

Touched = tuple[tuple[str, str], ...]
"""Kinds and ids of what a call reached; ids that callers made up for persons are keyed hashes."""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One call; never what was asked or answered.

    `status` is an HTTP status, or `INTENT`. `operation` is the operation's id, empty where the path
    has none. The call began `latency_us` before the record's time.
    """

    request_id: str
    status: int
    operation: str = ""
    method: str = ""
    tenant: str = ""
    key_id: str = ""
    address: str = ""
    latency_us: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    error: str = ""
    touched: Touched = ()


@dataclass(frozen=True, slots=True)
class Position:
    """Where a record stands: its time in microseconds, whose it is, and its number there."""

    time_us: int
    writer: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Chained:
    """A record in its place."""

    position: Position
    record: AuditRecord


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which records are wanted; None: any. `since_us` is included, `until_us` is not."""

    since_us: int | None = None
    until_us: int | None = None
    tenant: str | None = None
    key_id: str | None = None
    operation: str | None = None
    status: int | None = None
    status_class: int | None = None


Flaw = Literal[
    "changed", "missing", "inserted", "tail", "head", "writer", "checkpoint", "archive", "facet"
]


@dataclass(frozen=True, slots=True)
class Wrong:
    """The first place that is not what was written."""

    flaw: Flaw
    message: str
    position: Position | None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification has read, and what is wrong; `wrong` is None when nothing is."""

    num_records: int
    num_checkpoints: int
    num_archived_days: int
    wrong: Wrong | None = None
