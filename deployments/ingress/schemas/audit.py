"""Records of the audit log, as they are shown, and what a proof of it says."""

import re
from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from deployments.errors import RagError
from deployments.stores.content import invalid
from deployments.stores.ids import utc_of
from deployments.types.audit import INTENT, AuditFilter, Chained, Flaw, Position, Verified

ID_PATTERN = r"^([0-9]{1,16}-[0-9]{1,9}-[0-9]{1,18})?$"
STATUS_PATTERN = r"^([1-5][0-9]{2}|[1-5]xx|intent)?$"
_STATUS = re.compile(r"([1-5])xx")


class Touched(BaseModel):
    """One thing that a call reached; ids that callers made up are keyed hashes."""

    kind: str
    id: str


class AuditEntry(BaseModel):
    """One call; `status` is null of an intent, which is written before something is changed."""

    id: str
    object: Literal["audit.record"]
    time: str
    tenant: str | None
    key_id: str | None
    operation: str | None
    method: str
    address: str | None
    status: int | None
    error: str | None
    latency_ms: float
    tokens_in: int
    tokens_out: int
    request_id: str
    touched: list[Touched]


class AuditPage(BaseModel):
    """Records, the newest first; `next` is what `after` takes for the ones before them."""

    object: Literal["list"]
    data: list[AuditEntry]
    has_more: bool
    next: str | None


class AuditFlaw(BaseModel):
    """The first place that is wrong, where it has one."""

    kind: Flaw
    message: str
    id: str | None


class AuditProof(BaseModel):
    """What was read, and whether it is what was written."""

    object: Literal["audit.proof"]
    is_unbroken: bool
    num_records: int
    num_checkpoints: int
    num_archived_days: int
    first_wrong: AuditFlaw | None


def entry_of(chained: Chained) -> AuditEntry:
    """Return a record as the API shows it."""
    record = chained.record
    return AuditEntry(
        id=id_of(chained.position),
        object="audit.record",
        time=utc_of(chained.position.time_us),
        tenant=record.tenant or None,
        key_id=record.key_id or None,
        operation=record.operation or None,
        method=record.method,
        address=record.address or None,
        status=None if record.status == INTENT else record.status,
        error=record.error or None,
        latency_ms=record.latency_us / 1000,
        tokens_in=record.tokens_in,
        tokens_out=record.tokens_out,
        request_id=record.request_id,
        touched=[Touched(kind=kind, id=name) for kind, name in record.touched],
    )


def proof_of(verified: Verified) -> AuditProof:
    """Return a proof as the API shows it."""
    wrong = verified.wrong
    flaw = None
    if wrong is not None:
        place = None if wrong.position is None else id_of(wrong.position)
        flaw = AuditFlaw(kind=wrong.flaw, message=wrong.message, id=place)
    return AuditProof(
        object="audit.proof",
        is_unbroken=wrong is None,
        num_records=verified.num_records,
        num_checkpoints=verified.num_checkpoints,
        num_archived_days=verified.num_archived_days,
        first_wrong=flaw,
    )


def id_of(position: Position) -> str:
    """Return the id of a record: its place."""
    return f"{position.time_us}-{position.writer}-{position.sequence}"


def position_of(id_: str) -> Position | None:
    """Return the place that an id says; None for the empty one."""
    if not id_:
        return None
    time_us, writer, sequence = (int(part) for part in id_.split("-"))
    return Position(time_us, writer, sequence)


def filter_of(
    *, since: str, until: str, tenant: str, key: str, operation: str, status: str
) -> AuditFilter:
    """Return what is asked for; empty is any.

    Raises:
        InvalidRequest: a time is none.
    """
    of_class = _STATUS.fullmatch(status)
    return AuditFilter(
        since_us=_time(since, "since"),
        until_us=_time(until, "until"),
        tenant=tenant or None,
        key_id=key or None,
        operation=operation or None,
        status=_status(status) if status and of_class is None else None,
        status_class=int(of_class[1]) if of_class else None,
    )


def _status(status: str) -> int:
    return INTENT if status == "intent" else int(status)


def _time(said: str, param: str) -> int | None:
    if not said:
        return None
    try:
        time = datetime.fromisoformat(said)
    except ValueError:
        raise _no_time(param) from None
    if time.tzinfo is None or not 1970 < time.year < 9999:
        raise _no_time(param)
    return int(time.timestamp()) * 1_000_000 + time.microsecond


def _no_time(param: str) -> RagError:
    return invalid("a time in ISO 8601 with its offset, such as 2026-11-23T09:00:00Z", param)
