"""Alembic runs this file; the connection, already in a transaction, comes from `migrate`."""

from alembic import context

from deployments.stores.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
