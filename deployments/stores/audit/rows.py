"""A record as its day's table holds it, and back."""

from typing import Any

from sqlalchemy import ColumnElement, Table

from deployments.stores.audit.chain import touched_of
from deployments.stores.audit.facets import Facet
from deployments.types.audit import AuditRecord, Position

COLUMNS = (
    *("time_us", "writer", "sequence", "facet", "request_id", "address", "latency_us"),
    *("tokens_in", "tokens_out", "error", "touched", "hash"),
)


def columns_of(table: Table) -> list[ColumnElement[Any]]:
    """Return the columns in the order of `COLUMNS`."""
    return [table.c[name] for name in COLUMNS]


def position_of(row: Any) -> Position:
    """Return where a row stands."""
    return Position(row[0], row[1], row[2])


def record_of(row: Any, facet: Facet) -> AuditRecord:
    """Return the record of a row; raises ValueError when its text is damaged."""
    _, _, _, _, request_id, address, latency_us, tokens_in, tokens_out, error, touched, _ = row
    return AuditRecord(
        request_id=request_id,
        status=facet.status,
        operation=facet.operation,
        method=facet.method,
        tenant=facet.tenant,
        key_id=facet.key_id,
        address=address,
        latency_us=latency_us,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        error=error,
        touched=touched_of(touched),
    )
