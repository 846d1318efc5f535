"""What requests do with tasks."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection

from deployments.errors import Conflict, NotFound, RateLimited, StoreUnavailable
from deployments.stores.database import Database
from deployments.stores.grouping import GroupedWrites
from deployments.stores.tasks.store import TaskStore
from deployments.types.tasks import TaskOrder
from tests.unit.stores.tasks.conftest import DONE, START, Bench


def order(tenant: str = "acme", body: bytes = b"{}") -> TaskOrder:
    return TaskOrder(tenant=tenant, key_id="key_1", path="/v1/inference", body=body)


def test_task_is_there_when_it_was_put_in(bench: Bench):
    given = {"priority": 7, "not_before": START + 5, "deadline": START + 9, "webhook": "https://x"}
    state = bench.submit(is_streamed=True, **given)
    assert state == bench.get(state.id)
    assert (state.status, state.attempt, state.output) == ("PENDING", 0, None)
    assert {name: getattr(state, name) for name in given} == given
    assert bench.store.status("acme", state.id) == "PENDING"


def test_tasks_are_their_tenants_alone(bench: Bench):
    id_ = bench.submit().id
    for act in ("get", "status", "cancel", "retry", "delete"):
        with pytest.raises(NotFound):
            getattr(bench.store, act)("other", id_)
    assert bench.store.find("other", limit=10) == []
    assert bench.get(id_).status == "PENDING"


def test_tasks_are_found_newest_first_by_pages(bench: Bench):
    ids = [bench.submit(key_id=f"key_{i % 2}").id for i in range(5)]
    bench.store.cancel("acme", ids[1])
    first = bench.store.find("acme", limit=2)
    assert [one.id for one in first] == ids[:2:-1]
    rest = bench.store.find("acme", limit=9, before=first[-1].id)
    assert [one.id for one in rest] == ids[2::-1]
    assert [one.id for one in bench.store.find("acme", limit=9, status="CANCELLED")] == [ids[1]]
    assert [one.id for one in bench.store.find("acme", limit=9, key_id="key_1")] == [ids[3], ids[1]]


def test_room_is_each_tenants_own(bench: Bench):
    store = bench.store
    for _ in range(3):
        last = store.submit(order(), 3).result(30)
    with pytest.raises(RateLimited) as refused:
        store.submit(order(), 3).result(30)
    assert refused.value.retry_after_s
    store.submit(order("other"), 3).result(30)
    store.cancel("acme", last.id)
    assert store.submit(order(), 3).result(30).status == "PENDING"


def test_repeated_group_puts_a_task_in_once(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    """The commit was made, and its answer was lost."""
    store, whole = bench.store, bench.database.write
    lost = iter([True])

    @contextmanager
    def forgetful() -> Iterator[Connection]:
        with whole() as connection:
            yield connection
        if next(lost, False):
            raise StoreUnavailable("the database did not answer")

    monkeypatch.setattr(bench.database, "write", forgetful)
    futures = []

    def two(connection: Connection) -> None:
        futures.append(store.submit(order(), 9))
        futures.append(store.submit(order(), 9))

    lost_first = bench.writes.submit(two)  # the two wait while it is written, and make a group
    assert isinstance(lost_first.exception(30), StoreUnavailable)
    lost = iter([True])
    states = [one.result(30) for one in futures]
    assert {one.id for one in store.find("acme", limit=9)} == {one.id for one in states}
    assert bench.count("tasks") == 2


def test_waiting_task_is_cancelled_at_once(bench: Bench):
    id_ = bench.submit(webhook="https://x.example/").id
    assert bench.store.cancel("acme", id_).status == "CANCELLED"
    assert bench.store.cancel("acme", id_).status == "CANCELLED"
    assert bench.claim(bench.worker()) == []
    assert bench.count("webhook_deliveries") == 1


def test_running_task_is_cancelled_by_its_worker(bench: Bench):
    worker, id_ = bench.worker(), bench.submit().id
    [claim] = bench.claim(worker)
    state = bench.store.cancel("acme", id_)
    assert (state.status, state.is_cancelling) == ("RUNNING", True)
    assert worker.to_stop([claim]) == [claim]
    assert worker.finish(claim, DONE).result(30)
    assert (bench.get(id_).status, bench.get(id_).output) == ("CANCELLED", None)


def test_ended_task_stays_when_it_is_cancelled(bench: Bench):
    worker, id_ = bench.worker(), bench.submit().id
    worker.finish(bench.claim(worker)[0], DONE).result(30)
    assert bench.store.cancel("acme", id_).output == DONE.output


def test_retry_begins_anew(bench: Bench):
    worker, id_ = bench.worker(), bench.submit(deadline=START + 5).id
    [old] = bench.claim(worker)
    with pytest.raises(Conflict):
        bench.store.retry("acme", id_)
    bench.store.cancel("acme", id_)
    worker.finish(old, DONE).result(30)
    state = bench.store.retry("acme", id_)
    assert (state.status, state.is_cancelling, state.started_at) == ("PENDING", False, None)
    bench.now += 60
    [new] = bench.claim(worker)
    assert (new.attempt, new.deadline) == (2, 0)
    assert not worker.finish(old, DONE).result(30)
    assert worker.finish(new, DONE).result(30)
    with pytest.raises(Conflict):
        bench.store.retry("acme", id_)


def test_delete_removes_all_that_belongs_to_a_task(bench: Bench):
    worker, id_ = bench.worker(), bench.submit(is_streamed=True, webhook="https://x.example/").id
    [claim] = bench.claim(worker)
    worker.say(claim, [b"a", b"b"]).result(30)
    with pytest.raises(Conflict):
        bench.store.delete("acme", id_)
    worker.finish(claim, DONE).result(30)
    bench.store.delete("acme", id_)
    tables = ("tasks", "task_events", "webhook_deliveries")
    assert [bench.count(table) for table in tables] == [0, 0, 0]


def test_full_disk_fails_the_submission_and_leaves_nothing(tmp_path, migrated_file):
    path = tmp_path / "full.db"
    path.write_bytes(migrated_file.read_bytes())
    database = Database(f"sqlite:///{path}")
    writes = GroupedWrites(database, "tasks")
    store = TaskStore(database, writes)
    known = store.submit(order(), 99).result(30)
    with sqlite3.connect(path) as probe:
        pages = probe.execute("PRAGMA page_count").fetchone()[0]
    prepared = database._writes.connect()
    prepared.exec_driver_sql(f"PRAGMA max_page_count={pages + 2}")
    prepared.close()  # back into the pool, from which the next writer takes it
    futures = [store.submit(order(body=bytes(100_000)), 99) for _ in range(3)]
    for future in futures:
        with pytest.raises(StoreUnavailable, match="disk is full"):
            future.result(30)
    assert [one.id for one in store.find("acme", limit=9)] == [known.id]
    assert store.submit(order(), 99).result(30).status == "PENDING"
    writes.close()
    database.close()


def test_lost_connection_fails_the_submission(bench: Bench, database_url: str):
    away = Database("postgresql+psycopg://nobody@127.0.0.1:1/none")
    writes = GroupedWrites(away, "away")
    with pytest.raises(StoreUnavailable):
        TaskStore(away, writes).submit(order(), 9).result(30)
    writes.close()
    away.close()
    assert bench.store.find("acme", limit=9) == []


def test_events_are_told_from_any_place_on(bench: Bench):
    worker, id_ = bench.worker(), bench.submit(is_streamed=True).id
    [claim] = bench.claim(worker)
    worker.say(claim, [b"%d" % i for i in range(1, 8)]).result(30)
    found = bench.store.events(id_, 2, 3)
    assert [(one.number, one.data) for one in found] == [(3, b"3"), (4, b"4"), (5, b"5")]
    assert bench.store.events(id_, 7, 3) == []
