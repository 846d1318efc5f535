"""Every store is tested on every database; a database is one line here."""

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.migrations import migrate
from tests.faults.process import Disturber, disturber
from tests.faults.recovery import Scene
from tests.servers.postgres import FAST, Postgres, running_postgres
from tests.unit.stores.material import doc, put
from tests.unit.stores.replica import Replica, fill

NAMES = (f"test{number}" for number in itertools.count())


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Yield a server with a migrated database `migrated`: tests copy it."""
    with running_postgres(**FAST) as server:
        migrate(server.create("migrated"))
        yield server


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Migrate one SQLite file for all tests: a copy costs a fiftieth of a migration."""
    path = tmp_path_factory.mktemp("migrated") / "test.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def disturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disturber]:
    """Yield what runs operations and kills them, or fails their I/O, at a chosen call."""
    with disturber(tmp_path_factory.mktemp("shim")) as found:
        yield found


@pytest.fixture
def scene(operation: str, disturbed: Disturber) -> Iterator[Scene]:
    """Yield the operation of the test's parameter, in memory: no power is lost here."""
    with TemporaryDirectory(prefix="rs-", dir="/dev/shm") as folder:
        yield Scene(operation, Path(folder), disturbed)


def _sqlite(request: pytest.FixtureRequest, is_migrated: bool) -> Iterator[str]:
    path = request.getfixturevalue("tmp_path") / "state" / "test.db"
    if is_migrated:
        path.parent.mkdir(mode=0o700)
        shutil.copy(request.getfixturevalue("migrated_file"), path)
    yield f"sqlite:///{path}"


def _postgresql(request: pytest.FixtureRequest, is_migrated: bool) -> Iterator[str]:
    server, name = request.getfixturevalue("postgres"), next(NAMES)
    yield server.create(name, "migrated" if is_migrated else "template1")
    server.run(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database_bytes(request: pytest.FixtureRequest, database: Database) -> Callable[..., bytes]:
    """Return what closes the database and reads every byte that it has on the disk.

    With `has_log=False` without PostgreSQL's write-ahead log, which its server recycles in time.
    """

    def read(*, has_log: bool = True) -> bytes:
        database.close()
        if database.is_sqlite:
            folder = request.getfixturevalue("tmp_path") / "state"
            return b"".join(file.read_bytes() for file in folder.iterdir())
        server: Postgres = request.getfixturevalue("postgres")
        server.run("CHECKPOINT")
        files = (file for file in server.files() if has_log or "pg_wal" not in file.parts)
        return b"".join(file.read_bytes() for file in files)

    return read


DATABASES = {"sqlite": _sqlite, "postgresql": _postgresql}


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the address of an empty database; with `database`, of that one."""
    yield from DATABASES[request.param](request, "database" in request.fixturenames)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Yield an empty database at the newest revision."""
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def other(tmp_path: Path, migrated_file: Path) -> Iterator[Database]:
    """Yield a database beside `database`, in a file, as empty."""
    shutil.copy(migrated_file, tmp_path / "other.db")
    database = Database(f"sqlite:///{tmp_path / 'other.db'}")
    yield database
    database.close()


@pytest.fixture
def filled(database: Database) -> Database:
    """Return the database with documents in two collections, of which one was deleted."""
    put(database, [doc("1", "alpha " * 9, a=[1, "x"]), doc("2", "多语言 🦜", b=None), doc("3", "")])
    put(database, [doc("1", "other"), doc("4", "β" * 50)], "d")
    DocumentStore(database).delete("c", "2")
    return database


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "replica-state"


@pytest.fixture
def replica(database: Database, state: Path) -> Replica:
    """Return a replica that has a collection of a few documents in memory."""
    fill(database)
    replica = Replica(database, state)
    replica.find()
    return replica
