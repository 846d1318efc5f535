"""The chain: every record's hash covers the record and the hash before it.

A chain belongs to one writer, one process's life, and begins with the writer's number. Anybody can
compute it again from the records: BLAKE2b over the hash before and a JSON array in UTF-8.
"""

import hashlib
import hmac
from dataclasses import dataclass

import orjson

from deployments.types.audit import AuditRecord, Position, Touched

FORMAT = 1
HASH_BYTES = 32
PERSON = b"ragserve-audit"


@dataclass(frozen=True, slots=True)
class Head:
    """The last record of a chain; of an empty one, its beginning with sequence 0."""

    writer: int
    sequence: int
    time_us: int
    hash: bytes


def beginning(writer: int) -> Head:
    """Return the head of a chain without records."""
    return Head(writer, 0, 0, _hash(b"", [FORMAT, writer]))


def link(head: Head, time_us: int, record: AuditRecord) -> Head:
    """Return the head after one more record."""
    position = Position(time_us, head.writer, head.sequence + 1)
    return Head(head.writer, position.sequence, time_us, record_hash(head.hash, position, record))


def record_hash(previous: bytes, position: Position, record: AuditRecord) -> bytes:
    """Return the hash of a record that follows another."""
    return _hash(previous, canonical(position, record))


def canonical(position: Position, record: AuditRecord) -> list[object]:
    """Return the array that stands for a record."""
    return [
        FORMAT,
        position.writer,
        position.sequence,
        position.time_us,
        record.request_id,
        record.status,
        record.operation,
        record.method,
        record.tenant,
        record.key_id,
        record.address,
        record.latency_us,
        record.tokens_in,
        record.tokens_out,
        record.error,
        touched_json(record.touched),
    ]


def touched_json(touched: Touched) -> str:
    """Return what a call touched as rows hold it."""
    return orjson.dumps(touched).decode() if touched else ""


def touched_of(text: str) -> Touched:
    """Return what `touched_json` wrote."""
    return tuple((kind, name) for kind, name in orjson.loads(text)) if text else ()


def seal(key: bytes, head: Head) -> bytes:
    """Return what proves that a head was written by us: nobody else has the key."""
    message = orjson.dumps([head.writer, head.sequence, head.time_us, head.hash.hex()])
    return hashlib.blake2b(message, key=key, digest_size=HASH_BYTES, person=PERSON).digest()


def is_sealed(key: bytes, head: Head, found: bytes) -> bool:
    """Return whether a seal is the head's."""
    return hmac.compare_digest(seal(key, head), found)


def _hash(previous: bytes, values: list[object]) -> bytes:
    message = previous + orjson.dumps(values)
    return hashlib.blake2b(message, digest_size=HASH_BYTES, person=PERSON).digest()
