"""Checksums of collections and keys, and of all of a document; what a collection has, counted.

Revision: 0004, after 0003, 2026-11-23
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

from deployments.stores.checksums import (
    COLLECTION,
    DOCUMENT,
    checksum,
    row_checksum,
    sorted_json,
)

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

PAGE = 1000
KEY = ("id", "name", "secret_hash", "is_admin", "created_at", "revoked_at", "tenant")
COUNTED = ("documents", "chunks")
COLUMNS = (
    *(("collections", f"num_{counted}") for counted in COUNTED),
    *(("collections", "checksum"), ("keys", "checksum")),
)
Row = dict[str, Any]


def upgrade() -> None:
    """Add the columns, and compute them of what is stored; a damaged document stays so."""
    for table, name in COLUMNS:
        op.add_column(table, sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    _change_documents(_of_first_parts, lambda row: row_checksum(DOCUMENT, row))
    _change_texts(lambda row: checksum(row["text"]), _of_text_and_hash)
    for row in list(_rows("collections", COLLECTION, "id")):
        counts = {f"num_{counted}": _count(counted, row["id"]) for counted in COUNTED}
        _change("collections", row["id"], counts | _sum(COLLECTION, row | counts))
    for row in list(_rows("keys", KEY, "id")):
        _change("keys", row["id"], _sum(KEY, row))


def downgrade() -> None:
    """Drop the columns again, and compute the documents' checksums as they were."""
    _change_documents(lambda row: row_checksum(DOCUMENT, row), _of_first_parts)
    _change_texts(_of_text_and_hash, lambda row: checksum(row["text"]))
    for table, name in COLUMNS:
        op.drop_column(table, name)


def _count(name: str, collection_id: str) -> int:
    table = sa.table(name, sa.column("collection_id"))
    own = table.c.collection_id == collection_id
    return (
        op.get_bind().execute(sa.select(sa.func.count()).select_from(table).where(own)).scalar_one()
    )


def _sum(columns: tuple[str, ...], row: Row) -> dict[str, int]:
    return {"checksum": row_checksum(columns, row)}


def _change(name: str, key: str, values: dict[str, int]) -> None:
    table = sa.table(name, sa.column("id"), *map(sa.column, values))
    op.get_bind().execute(sa.update(table).where(table.c.id == key).values(values))


def _of_first_parts(row: Row) -> int:
    return checksum(row["id"], row["title"], sorted_json(row["metadata"]))


def _of_text_and_hash(row: Row) -> int:
    return checksum(row["text"], bytes(row["content_hash"]))


Sum = Callable[[Row], int]


def _change_documents(before: Sum, after: Sum) -> None:
    _replace("checksum", DOCUMENT, before, after)


def _change_texts(before: Sum, after: Sum) -> None:
    _replace("text_checksum", ("text", "content_hash"), before, after)


def _replace(sum_name: str, columns: tuple[str, ...], before: Sum, after: Sum) -> None:
    """Replace every checksum of a document that is right; no other one becomes so."""
    key = ("collection_id", "id")
    target = sa.table("documents", *map(sa.column, (*key, sum_name)))
    names = dict.fromkeys((*columns, *key, sum_name))
    for row in _rows("documents", tuple(names), *key):
        if row[sum_name] == before(row):
            where = [target.c[name] == row[name] for name in key]
            values = {sum_name: after(row)}
            op.get_bind().execute(sa.update(target).where(*where).values(values))


JSON = frozenset({"metadata", "index_settings", "default_metadata"})


def _rows(name: str, columns: tuple[str, ...], *key: str) -> Iterator[Row]:
    """Yield a table's rows in bounded pages; those read already may change meanwhile."""
    table = sa.table(name, *map(sa.column, columns))
    order = [table.c[one] for one in key]
    page = sa.select(
        *(
            sa.cast(table.c[one], sa.Text()).label(one) if one in JSON else table.c[one]
            for one in columns
        )
    )
    page = page.order_by(*order).limit(PAGE)
    rows = op.get_bind().execute(page).mappings().all()
    while rows:
        for row in rows:
            yield {**row, **{one: _parsed(row[one]) for one in JSON & set(columns)}}
        last = tuple(rows[-1][one] for one in key)
        rows = op.get_bind().execute(page.where(sa.tuple_(*order) > last)).mappings().all()


def _parsed(text: str) -> Any:
    """Return the object; what is damaged stays as it is, and so does not get a true checksum."""
    try:
        return json.loads(text)
    except ValueError:
        return text
