"""A database that has lost acknowledged commits is refused, and nothing else is."""

import logging
import shutil
import sqlite3
import stat
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select, text

from cluster.bootstrap import prepare_database
from cluster.errors import OperatorError
from deployments.config import Settings
from deployments.errors import Conflict, DatabaseDamaged, StoreUnavailable
from deployments.stores import schema
from deployments.stores.backup import back_up
from deployments.stores.collections import CollectionStore
from deployments.stores.commits import MODULUS, Commits, count_of
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.folders import LocalFolder
from deployments.stores.migrations import migrate
from deployments.stores.restore import read_manifest, restore
from tests.unit.stores.material import FORKSERVER, doc, put, settings

NOTE = "test.db-acknowledged"
NUM_NOTED = 50


@pytest.fixture
def state(tmp_path: Path, migrated_file: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    shutil.copy(migrated_file, folder / "test.db")
    return folder


@pytest.fixture
def opened(state: Path) -> Iterator[Callable[[], Database]]:
    """Return what opens the database as another process would."""
    databases: list[Database] = []

    def fresh() -> Database:
        databases.append(Database(f"sqlite:///{state / 'test.db'}"))
        return databases[-1]

    yield fresh
    for database in databases:
        database.close()


@pytest.fixture
def lost(state: Path, opened: Callable[[], Database]) -> Callable[[], Database]:
    """Lose the last of two writes, as SQLite does of a damaged log; return what opens the rest."""
    database = opened()
    put(database, [doc("first")])
    database.close()
    put(database, [doc("second")])
    log = state / "test.db-wal"
    damaged = bytearray(log.read_bytes())
    damaged[32 + 24 + 100] ^= 1
    kept = {name: (state / name).read_bytes() for name in ("test.db", NOTE)}
    database.close()
    for name, content in kept.items():
        (state / name).write_bytes(content)
    log.write_bytes(damaged)
    return opened


def count(state: Path) -> int:
    connection = sqlite3.connect(state / "test.db")
    try:
        return count_of(connection)
    finally:
        connection.close()


def test_every_commit_that_changes_something_is_counted_and_noted(
    state: Path, opened: Callable[[], Database]
):
    database, commits = opened(), Commits(state / "test.db")
    start = count(state)
    put(database, [doc("a")])
    put(database, [doc("b")])
    put(database, [doc("b")])  # unchanged: no transaction that writes
    assert (count(state), commits.noted()) == (start + 2, start + 2)
    database.vacuum()
    assert count(state) == start + 2
    with pytest.raises(Conflict):
        CollectionStore(database).create("c", settings())
    assert (count(state), commits.noted()) == (start + 2, start + 2)
    assert stat.S_IMODE((state / NOTE).stat().st_mode) == 0o600


def test_lost_commit_is_refused_before_anything_is_answered(
    lost: Callable[[], Database], state: Path
):
    statement = select(schema.keys.c.id)
    asks: list[Callable[[Database], object]] = [
        lambda one: one.read().__enter__(),
        lambda one: one.write().__enter__(),
        lambda one: one.migration().__enter__(),
        lambda one: one.rows(statement, {}),
        lambda one: one.vacuum(),
        lambda one: one.check(),
        lambda one: DocumentStore(one).get("c", "first"),
        lambda one: migrate(f"sqlite:///{state / 'test.db'}"),
    ]
    for ask in asks:
        for database in (lost(), lost()):
            for _ in range(2):
                with pytest.raises(DatabaseDamaged, match=NOTE):
                    ask(database)
            database.close()


def test_error_is_not_for_another_try_and_names_no_folder(
    lost: Callable[[], Database], tmp_path: Path
):
    with pytest.raises(DatabaseDamaged) as caught:
        lost().check()
    assert not caught.value.retryable
    assert str(tmp_path) not in caught.value.message


def test_without_the_note_it_goes_on(lost: Callable[[], Database], state: Path):
    (state / NOTE).unlink()
    database = lost()
    assert [one.id for one in DocumentStore(database).page("c", 9)] == ["first"]
    put(database, [doc("third")])
    assert Commits(state / "test.db").noted() == count(state)
    lost().check()


def test_starting_the_cluster_says_it(lost: Callable[[], Database], state: Path):
    del lost
    settings = Settings(state_dir=state, database_url=f"sqlite:///{state / 'test.db'}")
    with pytest.raises(OperatorError, match="acknowledged writes are missing"):
        prepare_database(settings)


def test_restore_goes_on_from_what_was_lost(lost: Callable[[], Database], tmp_path: Path):
    source = Database(f"sqlite:///{tmp_path / 'source.db'}")
    migrate(f"sqlite:///{tmp_path / 'source.db'}")
    put(source, [doc("kept")])
    folder = LocalFolder(tmp_path / "backup", is_new=True)
    back_up(source, folder, None, lambda *_: None)
    folder.publish()
    source.close()
    manifest = read_manifest(folder)
    with pytest.raises(Conflict):
        restore(lost(), folder, manifest, is_replaced=False, progress=lambda *_: None)
    with pytest.raises(DatabaseDamaged):
        lost().check()
    restore(lost(), folder, manifest, is_replaced=True, progress=lambda *_: None)
    assert [one.id for one in DocumentStore(lost()).page("c", 9)] == ["kept"]


def test_removed_database_is_not_taken_for_a_new_one(opened: Callable[[], Database], state: Path):
    put(database := opened(), [doc("a")])
    database.close()
    (state / "test.db").unlink()
    with pytest.raises(DatabaseDamaged):
        migrate(f"sqlite:///{state / 'test.db'}")


def test_open_database_notices_a_loss_at_its_next_health_check(
    opened: Callable[[], Database], state: Path
):
    database = opened()
    put(database, [doc("a")])
    database.check()
    connection = sqlite3.connect(state / "test.db")
    connection.execute("PRAGMA user_version=0")
    connection.close()
    with pytest.raises(DatabaseDamaged):
        database.check()
    with pytest.raises(DatabaseDamaged):
        DocumentStore(database).get("c", "a")


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 12, b"\xff" * 12, b"\0\0\0\0", (2**40).to_bytes(8, "big")]
)
def test_unsound_note_claims_nothing(opened: Callable[[], Database], state: Path, content: bytes):
    (state / NOTE).write_bytes(content)
    database = opened()
    put(database, [doc("a")])
    assert Commits(state / "test.db").noted() == count(state)


def test_every_flipped_bit_of_the_note_is_found(state: Path):
    commits = Commits(state / "test.db")
    commits.note(77)
    sound = (state / NOTE).read_bytes()
    for bit in range(8 * len(sound)):
        damaged = bytearray(sound)
        damaged[bit // 8] ^= 1 << bit % 8
        (state / NOTE).write_bytes(damaged)
        assert commits.noted() is None


def test_unreadable_note_is_unavailable(opened: Callable[[], Database], state: Path):
    (state / NOTE).mkdir()
    with pytest.raises(StoreUnavailable):
        opened().check()


def test_note_that_cannot_be_written_fails_no_commit(
    opened: Callable[[], Database], state: Path, caplog: pytest.LogCaptureFixture
):
    (state / NOTE).symlink_to(state / "elsewhere")  # a link is not followed
    with caplog.at_level(logging.WARNING):
        put(opened(), [doc("a")])
    assert "cannot be noted" in caplog.text
    assert not (state / "elsewhere").exists()
    assert [one.id for one in DocumentStore(opened()).page("c", 9)] == ["a"]


def test_note_only_grows(state: Path):
    commits = Commits(state / "test.db")
    for number, expected in ((5, 5), (3, 5), (5, 5), (9, 9), (8, 9)):
        commits.note(number)
        assert commits.noted() == expected


def test_count_begins_again_after_the_last(opened: Callable[[], Database], state: Path):
    database = opened()
    connection = sqlite3.connect(state / "test.db")
    connection.execute(f"PRAGMA user_version={MODULUS - 2}")
    connection.close()
    for number in range(4):
        put(database, [doc(f"d{number}")])
        opened().check()
    assert Commits(state / "test.db").noted() == count(state) == 2
    shutil.copy(state / NOTE, state / "kept")
    connection = sqlite3.connect(state / "test.db")
    connection.execute(f"PRAGMA user_version={MODULUS - 1}")
    connection.close()
    with pytest.raises(DatabaseDamaged):
        opened().check()


def _note_some(path: str, first: int) -> None:
    for number in range(first, first + NUM_NOTED):
        Commits(Path(path)).note(number)


def test_note_of_many_processes_and_threads_is_the_highest(state: Path):
    path = str(state / "test.db")
    firsts = [number * NUM_NOTED for number in range(4)]
    processes = [FORKSERVER.Process(target=_note_some, args=(path, one)) for one in firsts]
    for process in processes:
        process.start()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(_note_some, [path] * 4, firsts))
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0] * 4
    assert Commits(Path(path)).noted() == 4 * NUM_NOTED - 1


def test_failed_transaction_is_not_noted(opened: Callable[[], Database], state: Path):
    database = opened()
    put(database, [doc("a")])
    before = (count(state), (state / NOTE).read_bytes())

    def fail() -> None:
        with database.write() as connection:
            connection.execute(text("DELETE FROM chunks"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (count(state), (state / NOTE).read_bytes()) == before
    content = before[0].to_bytes(8, "big")
    assert before[1] == content + zlib.crc32(content).to_bytes(4, "big")
