"""The history of the schema, and how a database is brought up to date."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from deployments.stores.database import Database


def migrate(database_url: str) -> None:
    """Bring the database to the newest revision; many processes may call this at once.

    All revisions run in one transaction, so a crash leaves the database as it was.

    Raises:
        StoreUnavailable: the database did not answer; safe to retry.
    """
    database = Database(database_url, pool_size=1)
    try:
        with database.read() as connection:
            is_current = _is_current(connection)
        if not is_current:
            with database.migration() as connection:
                command.upgrade(alembic_config(connection), "head")
    finally:
        database.close()


def _is_current(connection: Connection) -> bool:
    heads = ScriptDirectory.from_config(alembic_config(connection)).get_heads()
    return MigrationContext.configure(connection).get_current_heads() == tuple(heads)


def alembic_config(connection: Connection) -> Config:
    """Return Alembic's configuration for commands in the connection's transaction."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
