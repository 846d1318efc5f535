"""What a key covers, and until when.

Revision: 0007, after 0006, 2026-11-23
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from deployments.stores.checksums import KEY, row_checksum

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

BEFORE = ("id", "name", "secret_hash", "is_admin", "created_at", "revoked_at", "tenant")
SCOPES = ["inference", "data", "data:write", "data:erase", "tasks", "feedback", "usage"]
KEYS = sa.table(
    "keys",
    *map(sa.column, (*BEFORE, "checksum", "expires_at")),
    sa.column("grants", sa.JSON()),
)


def upgrade() -> None:
    """Add the columns: a key covers what it did; a damaged row stays so."""
    op.add_column("keys", sa.Column("grants", sa.JSON(), nullable=False, server_default="{}"))
    op.add_column("keys", sa.Column("expires_at", sa.String(length=32)))
    for row in _rows():
        added = {"grants": {"scopes": SCOPES}, "expires_at": None}
        if row["checksum"] == row_checksum(BEFORE, row):
            added["checksum"] = row_checksum(KEY, row | added)  # type: ignore[assignment]
        _change(row["id"], added)


def downgrade() -> None:
    """Drop them; a key that has expired is revoked, since it would be valid again."""
    for row in _rows():
        is_right = row["checksum"] == row_checksum(KEY, row)
        changed = {"revoked_at": row["revoked_at"] or row["expires_at"]}
        if is_right:
            changed["checksum"] = row_checksum(BEFORE, row | changed)
        _change(row["id"], changed)
    op.drop_column("keys", "expires_at")
    op.drop_column("keys", "grants")


def _rows() -> list[dict[str, Any]]:
    return [dict(row) for row in op.get_bind().execute(sa.select(KEYS)).mappings()]


def _change(key_id: str, values: dict[str, Any]) -> None:
    op.get_bind().execute(sa.update(KEYS).where(KEYS.c.id == key_id).values(values))
