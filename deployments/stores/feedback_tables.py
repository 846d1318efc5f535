"""The table of what people thought of answers."""

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table, Text

from deployments.stores.table_metadata import metadata

feedback = Table(
    "feedback",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("key_id", String(40), nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("rating", Integer, nullable=False),
    Column("scale", String(8), nullable=False),
    Column("comment", Text, nullable=False),
    Column("corrected_output", Text, nullable=False),
    Column("subject", String(256), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index(None, "tenant", "request_id"),
    Index(None, "tenant", "subject"),
)
