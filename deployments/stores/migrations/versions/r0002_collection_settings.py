"""Tenants, each collection's own settings, data subjects, and the buckets that shards share out.

Revision: 0002, after 0001, 2026-11-22
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from deployments.stores.buckets import bucket_of

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

LOG = "ix_chunks_collection_id_sequence_number_bucket"
OLD_LOG = "ix_chunks_collection_id_sequence_number"
SUBJECTS = "ix_documents_collection_id_subject"
SETTINGS = ("tenant", "metric", "index_settings", "default_metadata", "epoch")


def upgrade() -> None:
    """Add the columns; what is stored belongs to the default tenant, with default settings."""
    with op.batch_alter_table("keys") as table:
        table.add_column(_text("tenant", "default"))
    with op.batch_alter_table("collections") as table:
        table.add_column(_text("tenant", "default"))
        table.add_column(_text("metric", "cosine", 16))
        table.add_column(_json("index_settings"))
        table.add_column(_json("default_metadata"))
        table.add_column(sa.Column("epoch", sa.BigInteger(), nullable=False, server_default="0"))
        table.drop_constraint(op.f("uq_collections_name"), type_="unique")
        table.create_unique_constraint(op.f("uq_collections_tenant_name"), ["tenant", "name"])
    op.add_column("documents", sa.Column("subject", sa.String(length=256)))
    op.create_index(SUBJECTS, "documents", ["collection_id", "subject"])
    bucket = sa.Column("bucket", sa.Integer(), nullable=False, server_default="0")
    op.add_column("chunks", bucket)
    _fill_buckets()
    op.drop_index(OLD_LOG, "chunks")
    op.create_index(LOG, "chunks", ["collection_id", "sequence", "number", "bucket"])


def downgrade() -> None:
    """Drop the columns again; raises IntegrityError when two tenants use the same name."""
    op.drop_index(LOG, "chunks")
    op.create_index(OLD_LOG, "chunks", ["collection_id", "sequence", "number"])
    op.drop_column("chunks", "bucket")
    op.drop_index(SUBJECTS, "documents")
    op.drop_column("documents", "subject")
    with op.batch_alter_table("collections") as table:
        table.drop_constraint(op.f("uq_collections_tenant_name"), type_="unique")
        for name in SETTINGS:
            table.drop_column(name)
        table.create_unique_constraint(op.f("uq_collections_name"), ["name"])
    with op.batch_alter_table("keys") as table:
        table.drop_column("tenant")


def _text(name: str, default: str, length: int = 64) -> "sa.Column[str]":
    return sa.Column(name, sa.String(length=length), nullable=False, server_default=default)


def _json(name: str) -> "sa.Column[Any]":
    return sa.Column(name, sa.JSON(), nullable=False, server_default="{}")


def _fill_buckets() -> None:
    chunks = sa.table("chunks", sa.column("document_id"), sa.column("bucket"))
    connection = op.get_bind()
    for (document_id,) in connection.execute(sa.select(chunks.c.document_id).distinct()).all():
        where = chunks.c.document_id == document_id
        connection.execute(sa.update(chunks).where(where).values(bucket=bucket_of(document_id)))
