"""The tables of files and of batches.

A file that was uploaded lies in `file_parts`, and is listed once it `is_whole`. One with a `view`
is none of its own: it is what the lines of its batch say, so what is removed there is gone from it.

A batch has a line for each request of its input, from its validation on; `data` is what came of
it, NULL before, and empty once it was erased. `epoch` of a line grows when its collection is erased
from: an answer that was begun before is not taken any more. `attempt` of a batch is that of the
task which writes to it; `verdict` is what it becomes when its lines are complete. Times are in
microseconds since 1970; 0 is none.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
)

from deployments.stores.table_metadata import metadata

files = Table(
    "files",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("purpose", String(16), nullable=False),
    Column("filename", Text, nullable=False),
    Column("num_bytes", BigInteger, nullable=False),
    Column("is_whole", Boolean, nullable=False),
    Column("view", String(8), nullable=False),
    Column("batch_id", String(40), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index(None, "tenant", "id"),
    Index(None, "batch_id"),
    Index(None, "expires_at"),
)

file_parts = Table(
    "file_parts",
    metadata,
    Column("file_id", String(40), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
)

batches = Table(
    "batches",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("key_id", String(40), nullable=False),
    Column("task_id", String(40), nullable=False),
    Column("endpoint", String(64), nullable=False),
    Column("input_file_id", String(40), nullable=False),
    Column("status", String(16), nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("faults", JSON, nullable=False),
    Column("moments", JSON, nullable=False),
    Column("num_lines", Integer, nullable=False),
    Column("num_completed", Integer, nullable=False),
    Column("num_failed", Integer, nullable=False),
    Column("output_kept_us", BigInteger, nullable=False),
    Column("output_file_id", String(40), nullable=False),
    Column("error_file_id", String(40), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index(None, "tenant", "id"),
    Index(None, "status"),
    Index(None, "input_file_id"),
)

batch_lines = Table(
    "batch_lines",
    metadata,
    Column("batch_id", String(40), primary_key=True),
    Column("line", Integer, primary_key=True, autoincrement=False),
    Column("custom_id", Text, nullable=False),
    Column("collection", String(160), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("is_failed", Boolean, nullable=False),
    Column("num_bytes", Integer, nullable=False),
    Column("data", LargeBinary),
    Index(None, "collection", "batch_id"),
)
