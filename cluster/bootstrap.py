"""The database and the first admin key: the one place where starting meets the stores."""

from dataclasses import dataclass

from cluster.errors import OperatorError
from deployments.config import Settings
from deployments.errors import RagError


@dataclass(frozen=True, slots=True)
class Prepared:
    """What became of the admin key: "created", "present", "removed" or "unusable"."""

    key_status: str


def prepare_database(settings: Settings) -> Prepared:
    """Bring the schema up to date and write the first admin key if there is no key at all.

    Raises:
        OperatorError: the database does not answer.
    """
    # SQLAlchemy and Alembic take a second that other commands need not wait.
    from deployments.stores.database import Database
    from deployments.stores.first_key import first_admin_key
    from deployments.stores.migrations import migrate

    try:
        migrate(settings.database)
        database = Database(settings.database, pool_size=1)
        try:
            return Prepared(first_admin_key(settings.state_path, database).status)
        finally:
            database.close()
    except RagError as error:
        raise OperatorError(f"the database cannot be prepared: {error.message}") from error
