"""Erasures and what they keep from coming back; checksums of documents and chunks.

Revision: 0003, after 0002, 2026-11-22
"""

import json
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

from deployments.stores.checksums import checksum, chunk_checksum, sorted_json

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

PAGE = 1000


def upgrade() -> None:
    """Create the tables, and compute the checksums of what is stored."""
    op.create_table(
        "erasures",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("parts", sa.JSON(), nullable=False),
        sa.Column("places", sa.JSON(), nullable=False),
        sa.Column("requested_at", sa.String(length=32), nullable=False),
        sa.Column("completed_at", sa.String(length=32)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_erasures")),
    )
    op.create_index(op.f("ix_erasures_tenant_id"), "erasures", ["tenant", "id"])
    op.create_table(
        "suppressions",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("erased_at", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_suppressions")),
    )
    for table, name in COLUMNS:
        op.add_column(table, sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    _fill_documents()
    _fill_chunks()


def downgrade() -> None:
    """Drop them."""
    for table, name in COLUMNS:
        op.drop_column(table, name)
    op.drop_table("suppressions")
    op.drop_table("erasures")


COLUMNS = (("documents", "checksum"), ("documents", "text_checksum"), ("chunks", "checksum"))


def _fill_documents() -> None:
    table = sa.table(
        "documents",
        *map(sa.column, ("collection_id", "id", "title", "text", "checksum", "text_checksum")),
        sa.column("metadata", sa.Text()),
    )
    for row in _rows(table, table.c.collection_id, table.c.id):
        metadata = row.metadata if isinstance(row.metadata, dict) else json.loads(row.metadata)
        where = (table.c.collection_id == row.collection_id) & (table.c.id == row.id)
        values = {
            "checksum": checksum(row.id, row.title, sorted_json(metadata)),
            "text_checksum": checksum(row.text),
        }
        op.get_bind().execute(sa.update(table).where(where).values(values))


def _fill_chunks() -> None:
    names = ("collection_id", "number", "id", "document_id", "start", "end", "text", "vector")
    table = sa.table("chunks", *map(sa.column, (*names, "checksum")))
    for row in _rows(table, table.c.collection_id, table.c.number):
        found = chunk_checksum(
            row.number, row.id, row.document_id, row.start, row.end, row.text, bytes(row.vector)
        )
        where = (table.c.collection_id == row.collection_id) & (table.c.number == row.number)
        op.get_bind().execute(sa.update(table).where(where).values(checksum=found))


def _rows(table: sa.TableClause, *key: "sa.ColumnElement[Any]") -> "Iterator[Any]":
    """Yield a table's rows in bounded pages; those read already may change meanwhile."""
    page = sa.select(table).order_by(*key).limit(PAGE)
    rows = op.get_bind().execute(page).all()
    while rows:
        yield from rows
        last = tuple(getattr(rows[-1], str(column.name)) for column in key)
        rows = op.get_bind().execute(page.where(sa.tuple_(*key) > last)).all()
