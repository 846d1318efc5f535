"""Group commits: all that a future says is so, whatever happens to a group."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, event, func, insert, select

from deployments.errors import Conflict, RateLimited, StoreUnavailable
from deployments.stores import schema
from deployments.stores.database import Database
from deployments.stores.grouping import GroupedWrites, NewRow

WORKERS = schema.task_workers


@pytest.fixture
def writes(database: Database) -> Iterator[GroupedWrites]:
    writes = GroupedWrites(database, "test")
    yield writes
    writes.close()


def put(name: str):
    def write(connection: Connection) -> str:
        connection.execute(insert(WORKERS).values(id=name, beat=0))
        return name

    return write


def row(name: str):
    def write(_: Connection) -> NewRow[str]:
        return NewRow(WORKERS, {"id": name, "beat": 0}, name)

    return write


def names(database: Database) -> set[str]:
    with database.read() as connection:
        return set(connection.scalars(select(WORKERS.c.id)))


@contextmanager
def held_up(writes: GroupedWrites) -> Iterator[None]:
    """Let what is submitted meanwhile become one group."""
    go, begun = threading.Event(), threading.Event()

    def wait(_: Connection) -> None:
        begun.set()
        assert go.wait(30)

    first = writes.submit(wait)
    assert begun.wait(30)
    try:
        yield
    finally:
        go.set()
    first.result(30)


def test_writes_are_there_when_their_futures_are_done(writes: GroupedWrites, database: Database):
    futures = [writes.submit(put(f"w{i}")) for i in range(300)]
    assert [one.result(30) for one in futures] == [f"w{i}" for i in range(300)]
    assert len(names(database)) == 300


def test_those_that_wait_share_a_transaction(writes: GroupedWrites, database: Database):
    count, opened = 0, database.write

    @contextmanager
    def counted() -> Iterator[Connection]:
        nonlocal count
        count += 1
        with opened() as connection:
            yield connection

    database.write = counted  # type: ignore[method-assign]
    with held_up(writes):
        futures = [writes.submit(put(f"w{i}")) for i in range(100)]
    assert all(one.result(30) for one in futures)
    assert count == 2


def test_one_that_collides_fails_alone(writes: GroupedWrites, database: Database):
    with held_up(writes):
        futures = [writes.submit(put(name)) for name in ("a", "b", "b", "c")]
    assert [type(one.exception(30)) for one in futures] == [type(None)] * 2 + [Conflict, type(None)]
    assert names(database) == {"a", "b", "c"}


def test_one_that_is_refused_disturbs_nobody(writes: GroupedWrites, database: Database):
    calls: list[str] = []

    def counted(connection: Connection) -> None:
        calls.append("x")
        connection.scalar(select(func.count()).select_from(WORKERS))

    def refuse(_: Connection) -> None:
        raise RateLimited("full")

    with held_up(writes):
        others = [writes.submit(counted), writes.submit(put("a"))]
        refused = writes.submit(refuse)
        others.append(writes.submit(put("b")))
    assert isinstance(refused.exception(30), RateLimited)
    assert [one.exception(30) for one in others] == [None] * 3
    assert (calls, names(database)) == (["x"], {"a", "b"}), "the group was written at once"


def test_without_an_answer_all_that_waits_is_told_at_once(
    writes: GroupedWrites, database: Database
):
    num_tried = 0

    @contextmanager
    def broken() -> Iterator[Connection]:
        nonlocal num_tried
        num_tried += 1
        raise StoreUnavailable("the database did not answer")
        yield

    with held_up(writes):
        futures = [writes.submit(put(f"w{i}")) for i in range(50)]
        whole, database.write = database.write, broken  # type: ignore[method-assign]
    assert all(isinstance(one.exception(30), StoreUnavailable) for one in futures)
    assert num_tried == 2, "the group, and one alone"
    database.write = whole  # type: ignore[method-assign]
    assert writes.submit(put("later")).result(30) == "later"
    assert names(database) == {"later"}


def test_an_error_of_a_write_reaches_its_future_alone(writes: GroupedWrites, database: Database):
    def fail(_: Connection) -> None:
        raise ZeroDivisionError

    with held_up(writes):
        failing, fine = writes.submit(fail), writes.submit(put("a"))
    with pytest.raises(ZeroDivisionError):
        failing.result(30)
    assert fine.result(30) == "a"


def test_close_writes_what_waits(database: Database):
    writes = GroupedWrites(database, "test")
    with held_up(writes):
        futures = [writes.submit(put(f"w{i}")) for i in range(10)]
    writes.close()
    assert all(one.done() for one in futures)
    assert len(names(database)) == 10
    with pytest.raises(StoreUnavailable):
        writes.submit(put("late"))


def test_rows_of_a_group_are_one_statement(writes: GroupedWrites, database: Database):
    statements: list[str] = []

    @event.listens_for(database._engine, "before_cursor_execute")
    def note(*given: Any) -> None:
        statements.append(given[2])

    with held_up(writes):
        futures = [writes.submit(row(f"w{i}")) for i in range(64)]
    assert [one.result(30) for one in futures] == [f"w{i}" for i in range(64)]
    assert names(database) == {f"w{i}" for i in range(64)}
    assert len([one for one in statements if one.startswith("INSERT")]) == 1


def test_row_that_collides_fails_alone(writes: GroupedWrites, database: Database):
    with held_up(writes):
        futures = [writes.submit(row(name)) for name in ("a", "b", "b")]
        futures.append(writes.submit(put("c")))
    assert [type(one.exception(30)) for one in futures] == [type(None)] * 2 + [Conflict, type(None)]
    assert names(database) == {"a", "b", "c"}
