"""The tables of work that outlives its request: tasks, who does them, and who is told.

A task's row holds all there is of it. `owner` is the worker that does it; a worker is alive while
the `beat` of its row in `task_workers` grows, which nobody's clock has to agree on. `attempt` grows
whenever the task is begun: what an earlier attempt says is not heard. `num_lost` counts attempts
whose worker died, `num_failures` those that failed and may be repeated. `collection` is the path of
the collection that a task reads or writes, so that erasure finds it.

A row of `webhook_deliveries` comes with the end that it tells of, in one transaction; `next_at` is
when it is tried (again). Times are in microseconds since 1970; 0 is none.
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

tasks = Table(
    "tasks",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("key_id", String(40), nullable=False),
    Column("path", String(64), nullable=False),
    Column("collection", String(160), nullable=False),
    Column("status", String(16), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("is_streamed", Boolean, nullable=False),
    Column("is_cancelling", Boolean, nullable=False),
    Column("is_erased", Boolean, nullable=False),
    Column("owner", String(40), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("num_lost", Integer, nullable=False),
    Column("num_failures", Integer, nullable=False),
    Column("not_before", BigInteger, nullable=False),
    Column("retry_at", BigInteger, nullable=False),
    Column("deadline", BigInteger, nullable=False),
    Column("kept_us", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("completed_at", BigInteger),
    Column("progress", JSON, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("output", LargeBinary),
    Column("error", JSON),
    Column("usage", JSON),
    Column("webhook", Text, nullable=False),
    Index(None, "status", "priority", "tenant", "id"),
    Index(None, "tenant", "id"),
    Index(None, "tenant", "status"),
    Index(None, "expires_at"),
    Index(None, "owner"),
)

task_events = Table(
    "task_events",
    metadata,
    Column("task_id", String(40), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
)

task_workers = Table(
    "task_workers",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("beat", BigInteger, nullable=False),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("subject", String(40), nullable=False),
    Column("event", String(40), nullable=False),
    Column("url", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("num_attempts", Integer, nullable=False),
    Column("next_at", BigInteger, nullable=False),
    Column("http_status", Integer),
    Column("error", String(40), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Index(None, "status", "next_at"),
    Index(None, "tenant", "id"),
    Index(None, "subject"),
)
