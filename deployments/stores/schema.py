"""The tables: what is durable, and nothing that can be computed from it.

`chunks` and `removed_chunks` together are the log that replicas follow: every row carries the
sequence number its collection had after the transaction that wrote it. A chunk's `number` grows
with the sequence and is never used twice, so followers address chunks by 8 bytes. Removals up to
the collection's `log_start` are forgotten: a follower that stopped before it starts anew.

A collection's `epoch` grows when something was erased from it: what a follower or a snapshot of an
older epoch holds must not outlive that, so it starts anew. `subject` is the person whose data a
document is, where the caller said so; `bucket` is the part of a collection (``buckets.py``).

`suppressions` are keyed hashes of what was erased: no restored backup may bring that back.
Checksums tell damage of the disk from data (``checksums.py``), and a collection's counts of its
documents and chunks tell of rows that a damaged index hides.

`models` are those loaded at run time, `model_aliases` the names that requests use for them, and
`registry_changes` has a row, once there was a change, whose `revision` every change of either
raises (``models.py``); its second row does that for `tunings`, the fine-tunings (``tunings.py``). A
lease says which process does what only one may do. Their times are in microseconds since 1970.

A chunk repeats its part of the document's text, because cutting it out of a long one for every hit
would read the whole document each time.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from deployments.stores.batch_tables import batch_lines, batches, file_parts, files
from deployments.stores.feedback_tables import feedback
from deployments.stores.table_metadata import metadata
from deployments.stores.task_tables import task_events, task_workers, tasks, webhook_deliveries

__all__ = [
    "batch_lines",
    "batches",
    "chunks",
    "collections",
    "documents",
    "erasures",
    "feedback",
    "file_parts",
    "files",
    "keys",
    "leases",
    "metadata",
    "model_aliases",
    "models",
    "registry_changes",
    "removed_chunks",
    "replays",
    "second_factors",
    "suppressions",
    "task_events",
    "task_workers",
    "tasks",
    "tunings",
    "webhook_deliveries",
]

replays = Table(
    "replays",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("request", String(40), nullable=False),
    Column("began_at", BigInteger, nullable=False, index=True),
    Column("answer", LargeBinary),
)
second_factors = Table(
    "second_factors",
    metadata,
    Column("key_id", String(40), primary_key=True),
    Column("secret", LargeBinary, nullable=False),
    Column("is_confirmed", Boolean, nullable=False),
    Column("last_step", BigInteger, nullable=False),
    Column("num_failures", Integer, nullable=False),
    Column("locked_until", BigInteger, nullable=False),
    Column("recovery", JSON, nullable=False),
)
keys = Table(
    "keys",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("secret_hash", LargeBinary(32), nullable=False),
    Column("is_admin", Boolean, nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("revoked_at", String(32)),
    Column("tenant", String(64), nullable=False, server_default="default"),
    Column("checksum", BigInteger, nullable=False, server_default="0"),
    Column("grants", JSON, nullable=False, server_default="{}"),
    Column("expires_at", String(32)),
)

collections = Table(
    "collections",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("description", Text, nullable=False),
    Column("embedding_model", String(200), nullable=False),
    Column("dim", Integer, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("next_chunk_number", BigInteger, nullable=False),
    Column("log_start", BigInteger, nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("tenant", String(64), nullable=False, server_default="default"),
    Column("metric", String(16), nullable=False, server_default="cosine"),
    Column("index_settings", JSON, nullable=False, server_default="{}"),
    Column("default_metadata", JSON, nullable=False, server_default="{}"),
    Column("epoch", BigInteger, nullable=False, server_default="0"),
    Column("num_documents", BigInteger, nullable=False, server_default="0"),
    Column("num_chunks", BigInteger, nullable=False, server_default="0"),
    Column("checksum", BigInteger, nullable=False, server_default="0"),
    UniqueConstraint("tenant", "name"),
)

documents = Table(
    "documents",
    metadata,
    Column("collection_id", String(40), ForeignKey("collections.id"), primary_key=True),
    Column("id", String(256), primary_key=True),
    Column("title", Text, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("content_hash", LargeBinary(32), nullable=False),
    Column("num_chunks", Integer, nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("updated_at", String(32), nullable=False),
    Column("text", Text, nullable=False),  # last: SQLite reads a row only as far as it must
    Column("subject", String(256)),
    Column("checksum", BigInteger, nullable=False, server_default="0"),
    Column("text_checksum", BigInteger, nullable=False, server_default="0"),
    Index(None, "collection_id", "subject"),
)

chunks = Table(
    "chunks",
    metadata,
    Column("collection_id", String(40), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("id", String(40), nullable=False),
    Column("document_id", String(256), nullable=False),
    Column("start", Integer, nullable=False),
    Column("end", Integer, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("text", Text, nullable=False),
    Column("vector", LargeBinary, nullable=False),
    Column("bucket", Integer, nullable=False, server_default="0"),
    Column("checksum", BigInteger, nullable=False, server_default="0"),
    ForeignKeyConstraint(
        ["collection_id", "document_id"], ["documents.collection_id", "documents.id"]
    ),
    Index(None, "collection_id", "document_id"),
    Index(None, "collection_id", "sequence", "number", "bucket"),
)

removed_chunks = Table(
    "removed_chunks",
    metadata,
    Column("collection_id", String(40), ForeignKey("collections.id"), primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
)

erasures = Table(
    "erasures",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("parts", JSON, nullable=False),
    Column("places", JSON, nullable=False),
    Column("requested_at", String(32), nullable=False),
    Column("completed_at", String(32)),
    Index(None, "tenant", "id"),
)

suppressions = Table(
    "suppressions",
    metadata,
    Column("digest", LargeBinary(32), primary_key=True),
    Column("erased_at", String(32), nullable=False),
)

models = Table(
    "models",
    metadata,
    Column("name", String(160), primary_key=True),
    Column("version", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("spec", JSON, nullable=False),
    Column("phase", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("error", Text, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    Column("ready_at", BigInteger),
    Column("retire_at", BigInteger),
    Column("used_at", BigInteger),
    Column("progress", JSON, nullable=False),
)

model_aliases = Table(
    "model_aliases",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("targets", JSON, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
)

registry_changes = Table(
    "registry_changes",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("revision", BigInteger, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)

tunings = Table(
    "tunings",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("version", String(64), nullable=False),
    Column("spec", JSON, nullable=False),
    Column("phase", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("error", Text, nullable=False),
    Column("progress", JSON, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("completed_at", BigInteger),
    Index(None, "name", "version"),
    Index(None, "phase"),
)
