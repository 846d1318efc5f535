"""Every store is tested on every database; a database is one line here."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.stores.database import Database
from deployments.stores.migrations import migrate

DATABASES = {"sqlite": lambda folder: f"sqlite:///{folder / 'state' / 'test.db'}"}


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of a database that does not exist yet."""
    return DATABASES[request.param](tmp_path)


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Migrate one SQLite file for all tests: a copy costs a fiftieth of a migration."""
    path = tmp_path_factory.mktemp("migrated") / "test.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def database(database_url: str, migrated_file: Path) -> Iterator[Database]:
    """Yield an empty database at the newest revision."""
    if database_url.startswith("sqlite:///"):
        path = Path(database_url.removeprefix("sqlite:///"))
        path.parent.mkdir(mode=0o700)
        shutil.copy(migrated_file, path)
    migrate(database_url)
    database = Database(database_url)
    yield database
    database.close()
