import sqlite3
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, bindparam, exc, insert, select, text

from deployments.errors import Conflict, DatabaseDamaged, RagError, StoreUnavailable
from deployments.stores import schema, sqlite
from deployments.stores.database import Database, insert_rows
from deployments.stores.sql_errors import ERRORS, translated
from deployments.stores.tasks.rows import values_of
from deployments.types.tasks import TaskOrder
from tests.unit.stores.material import ONLY_SQLITE


def subclasses(cls: type) -> set[type]:
    return {cls} | {found for child in cls.__subclasses__() for found in subclasses(child)}


def test_error_table_covers_every_class_of_the_driver_interface():
    driver = subclasses(exc.DBAPIError) - {exc.DBAPIError}
    assert driver <= set(ERRORS)


def test_error_table_lists_no_class_behind_its_base():
    seen: list[type] = []
    for theirs in ERRORS:
        assert not issubclass(theirs, tuple(seen)), theirs
        seen.append(theirs)


def insert_key(connection: Connection, name: str = "n") -> None:
    row = {"id": "key_1", "name": name, "secret_hash": b"", "is_admin": False, "created_at": ""}
    connection.execute(insert(schema.keys).values(row))


def test_translated_error_repeats_no_value(database: Database):
    with database.write() as connection:
        insert_key(connection, "nnnnnn")
    with pytest.raises(Conflict) as caught, database.write() as connection:
        insert_key(connection, "nnnnnn")
    assert "nnn" not in str(caught.value)
    assert "nnn" not in str(caught.value.__cause__)


def test_unknown_library_error_becomes_internal():
    with pytest.raises(RagError) as caught, translated():
        raise exc.InvalidRequestError("secret")
    assert type(caught.value) is RagError
    assert caught.value.message == "internal error"


def test_read_sees_one_state(database: Database):
    with database.read() as reader:
        before = reader.execute(select(schema.keys)).all()
        with database.write() as writer:
            insert_key(writer)
        assert reader.execute(select(schema.keys)).all() == before
    with database.read() as reader:
        assert len(reader.execute(select(schema.keys)).all()) == 1


def test_write_that_raises_leaves_nothing(database: Database):
    def fail() -> None:
        with database.write() as connection:
            insert_key(connection)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with database.read() as connection:
        assert connection.execute(select(schema.keys)).all() == []


NAMES = select(schema.keys.c.id, schema.keys.c.created_at).where(
    schema.keys.c.name == bindparam("name"), schema.keys.c.id.in_(bindparam("ids", expanding=True))
)


@pytest.mark.parametrize("num_ids", [1, 3, 2])
def test_rows_are_those_of_a_transaction(database: Database, num_ids: int):
    with database.write() as connection:
        insert_key(connection)
    parameters = {"name": "n", "ids": [f"key_{number + 1}" for number in range(num_ids)]}
    with database.read() as connection:
        expected = connection.execute(NAMES, parameters).all()
    assert len(expected) == 1
    assert list(map(tuple, database.rows(NAMES, parameters))) == list(map(tuple, expected))
    assert not database.rows(NAMES, parameters | {"name": "other"})


def test_rows_show_every_commit_and_nothing_else(database: Database):
    parameters = {"name": "n", "ids": ["key_1"]}
    assert not database.rows(NAMES, parameters)
    with database.write() as connection:
        insert_key(connection)
        assert not database.rows(NAMES, parameters)
    assert len(database.rows(NAMES, parameters)) == 1


def test_rows_are_open_to_many_threads(database: Database):
    with database.write() as connection:
        insert_key(connection)

    def ask(_: int) -> int:
        return len(database.rows(NAMES, {"name": "n", "ids": ["key_1"]}))

    with ThreadPoolExecutor(8) as executor:
        assert set(executor.map(ask, range(200))) == {1}


# --- SQLite -----------------------------------------------------------------------------------


def test_sqlite_files_belong_to_their_owner_only(tmp_path: Path):
    path = tmp_path / "a" / "b" / "test.db"
    database = Database(f"sqlite:///{path}")
    with database.write() as connection:
        connection.execute(text("CREATE TABLE t (x INTEGER)"))
        files = list(path.parent.iterdir())
        assert {file.name for file in files} == {"test.db", "test.db-wal", "test.db-shm"}
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    database.close()


def test_sqlite_connection_is_durable_and_strict(tmp_path: Path):
    database = Database(f"sqlite:///{tmp_path / 'test.db'}")
    wanted = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1}
    with database.read() as connection:
        found = {name: connection.execute(text(f"PRAGMA {name}")).scalar() for name in wanted}
    assert found == wanted
    database.close()


@ONLY_SQLITE
def test_sqlite_writers_of_many_threads_take_turns(database: Database):
    def increase() -> None:
        for _ in range(20):
            with database.write() as connection:
                (count,) = connection.execute(text("SELECT n FROM counter")).one()
                connection.execute(text("UPDATE counter SET n = :n"), {"n": count + 1})

    with database.write() as connection:
        connection.execute(text("CREATE TABLE counter (n INTEGER)"))
        connection.execute(text("INSERT INTO counter VALUES (0)"))
    threads = [threading.Thread(target=increase) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as connection:
        assert connection.execute(text("SELECT n FROM counter")).scalar_one() == 80


def test_sqlite_lock_held_too_long_is_unavailable(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sqlite.CONNECT, "timeout", 0.05)
    path = tmp_path / "test.db"
    database = Database(f"sqlite:///{path}")
    with database.write() as connection:
        connection.execute(text("CREATE TABLE t (x INTEGER)"))
    other = sqlite3.connect(path)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable), database.write():
        pass
    other.close()
    database.close()


def test_sqlite_file_that_is_no_database_is_damaged(tmp_path: Path):
    path = tmp_path / "test.db"
    path.write_bytes(b"no database" * 1000)
    database = Database(f"sqlite:///{path}")
    with pytest.raises(DatabaseDamaged):
        database.check()
    with pytest.raises(DatabaseDamaged):
        database.rows(NAMES, {"name": "n", "ids": []})
    database.close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_sqlite_in_memory_is_refused(url: str):
    with pytest.raises(ValueError, match="file"):
        Database(url)


@pytest.mark.parametrize("num_rows", [1, 2, 63, 64, 65, 200])
def test_rows_are_inserted_as_they_are(database: Database, num_rows: int) -> None:
    values = [
        values_of(
            TaskOrder(tenant="acme", key_id="k", path="/v1/x", body=bytes([n % 256]), kept_s=n),
            f"task_{n}",
            n,
        )
        for n in range(num_rows)
    ]
    with database.write() as connection:
        insert_rows(connection, schema.tasks, values)
    with database.read() as connection:
        found = connection.execute(select(schema.tasks).order_by(schema.tasks.c.created_at)).all()
    rows = [row._asdict() for row in found]
    assert [{name: row[name] for name in values[0]} for row in rows] == values


def test_rows_that_collide_are_a_conflict(database: Database) -> None:
    rows = [{"id": name, "beat": 0} for name in ("a", "b", "a")]
    with pytest.raises(Conflict), database.write() as connection:
        insert_rows(connection, schema.task_workers, rows)
    with database.read() as connection:
        assert connection.execute(select(schema.task_workers)).all() == []
