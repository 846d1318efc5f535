"""Every store is tested on every database; a database is one line here."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.stores.database import Database
from deployments.stores.migrations import migrate

DATABASES = {"sqlite": lambda folder: f"sqlite:///{folder / 'state' / 'test.db'}"}


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return DATABASES[request.param](tmp_path)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    migrate(database_url)
    database = Database(database_url)
    yield database
    database.close()
