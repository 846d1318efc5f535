"""Erasure of tasks: what goes, what ends, what begins anew, what nobody asked to have erased."""

import json
import threading
from collections.abc import Callable

import pytest

from deployments.errors import Conflict
from deployments.stores import schema
from deployments.stores.database import Database
from deployments.stores.erasures import ErasureStore
from deployments.stores.suppressions import Suppressions
from deployments.stores.tasks.erasing import ERASED, INDEX
from deployments.types import Condition, ErasureScope
from deployments.types.tasks import TaskEnd, TaskProgress
from tests.unit.stores.material import doc, put
from tests.unit.stores.tasks.conftest import DONE, Bench

PEPPER = bytes(32)
SECRET = b"xyzzyplugh"


@pytest.fixture
def erasures(bench: Bench) -> ErasureStore:
    for collection in ("c", "d"):
        put(bench.database, [doc("a"), doc("b")], collection)
    return ErasureStore(bench.database, PEPPER)


def scope(**fields: object) -> ErasureScope:
    return ErasureScope(**({"tenant": "default", "collection": "c"} | fields))  # type: ignore[arg-type]


def index(*documents: dict[str, object]) -> bytes:
    return json.dumps({"collection": "c", "documents": documents}).encode()


def row(bench: Bench, id_: str) -> dict[str, object]:
    with bench.database.read() as connection:
        found = connection.exec_driver_sql(f"SELECT * FROM tasks WHERE id = '{id_}'")  # noqa: S608
        return dict(found.mappings().one())


def done(bench: Bench, **given: object) -> str:
    """Have a task done that says and answers what is secret."""
    given = {"collection": "c", "tenant": "default", "is_streamed": True, **given}
    worker, id_ = bench.worker(), bench.submit(body=b'{"prompt": "%s"}' % SECRET, **given).id
    [claim] = bench.claim(worker)
    worker.say(claim, [b'{"text": "%s"}' % SECRET]).result(30)
    end = TaskEnd(status="COMPLETED", output=b'"%s"' % SECRET, usage={"total_tokens": 3})
    worker.finish(claim, end).result(30)
    return id_


@pytest.mark.parametrize(
    "fields",
    [{}, {"document_ids": ("a",)}, {"subject": "ann"}, {"filter": Condition("_id", "eq", "a")}],
    ids=["collection", "documents", "subject", "filter"],
)
def test_ended_task_loses_its_content(bench: Bench, erasures: ErasureStore, fields: dict):
    id_ = done(bench)
    others = [done(bench, collection="d"), done(bench, collection="")]
    others.append(done(bench, tenant="other"))
    erasures.erase(scope(**fields))
    state = bench.get(id_, "default")
    assert (state.status, state.is_erased, state.output) == ("COMPLETED", True, None)
    assert state.usage == {"total_tokens": 3}
    assert bytes(row(bench, id_)["body"]) == b""  # type: ignore[arg-type]
    assert bench.store.events(id_, 0, 9) == []
    for other in others:
        assert SECRET in bytes(row(bench, other)["output"])  # type: ignore[arg-type]
        assert len(bench.store.events(other, 0, 9)) == 1


def test_erased_task_is_not_done_again(bench: Bench, erasures: ErasureStore):
    id_ = bench.submit("default", collection="c", body=SECRET).id
    bench.store.cancel("default", id_)
    erasures.erase(scope())
    with pytest.raises(Conflict):
        bench.store.retry("default", id_)


def test_subject_without_collection_reaches_every_task_of_a_collection(
    bench: Bench, erasures: ErasureStore
):
    ids = [done(bench, collection=one) for one in ("c", "d", "gone")]
    kept = [done(bench, collection=""), done(bench, tenant="other")]
    erasures.erase(scope(collection=None, subject="ann"))
    assert all(bench.get(one, "default").is_erased for one in ids)
    assert not any(row(bench, one)["is_erased"] for one in kept)


@pytest.mark.parametrize(
    ("fields", "ended"),
    [
        ({}, {"a", "b", "ann"}),
        ({"document_ids": ("a", "z")}, {"a"}),
        ({"subject": "ann"}, {"ann"}),
        ({"filter": Condition("_id", "eq", "a")}, {"a", "b", "ann"}),
    ],
    ids=["collection", "documents", "subject", "filter"],
)
@pytest.mark.parametrize("is_running", [False, True])
def test_indexing_that_would_bring_it_back_ends(
    bench: Bench, erasures: ErasureStore, fields: dict, ended: set[str], is_running: bool
):
    bodies = {
        "a": index({"id": "a", "text": "x"}),
        "b": index({"id": "b", "text": "a"}, {"text": "ann"}),
        "ann": index({"id": "n", "subject": "ann", "text": "x"}),
    }
    given = {"path": INDEX, "collection": "c", "webhook": "https://x.example"}
    ids = {name: bench.submit("default", body=body, **given).id for name, body in bodies.items()}
    worker = bench.worker()
    claims = bench.claim(worker, 3) if is_running else []
    erasures.erase(scope(**fields))
    for name, id_ in ids.items():
        found = row(bench, id_)
        assert found["status"] == ("CANCELLED" if name in ended else "PENDING"), name
        assert bytes(found["body"]) == (b"" if name in ended else bodies[name])  # type: ignore[arg-type]
        assert bool(found["is_erased"]) == (name in ended)
    assert worker.to_stop(claims) == claims
    assert bench.count("webhook_deliveries") == len(ended)


def test_running_task_begins_anew(bench: Bench, erasures: ErasureStore):
    worker = bench.worker()
    given = {"collection": "c", "is_streamed": True, "body": b"question"}
    id_ = bench.submit("default", **given).id
    [old] = bench.claim(worker)
    worker.say(old, [SECRET, SECRET]).result(30)
    worker.progress(old, TaskProgress(1, 2)).result(30)
    erasures.erase(scope(document_ids=("a",)))
    assert not worker.say(old, [SECRET]).result(30)
    assert not worker.finish(old, TaskEnd(status="COMPLETED", output=SECRET)).result(30)
    assert bench.get(id_, "default").progress == TaskProgress()
    [new] = bench.claim(worker)
    assert (new.body, new.attempt) == (b"question", 2)
    assert worker.say(new, [b"clean"]).result(30)
    assert worker.finish(new, DONE).result(30)
    said = [(one.number, one.data) for one in bench.store.events(id_, 0, 9)]
    assert said == [(2, ERASED), (3, b"clean")], "numbered on, for those who follow"
    assert bench.get(id_, "default").output == DONE.output


def test_cancelled_task_that_runs_ends(bench: Bench, erasures: ErasureStore):
    worker, id_ = bench.worker(), bench.submit("default", collection="c", body=SECRET).id
    bench.claim(worker)
    bench.store.cancel("default", id_)
    erasures.erase(scope())
    assert (row(bench, id_)["status"], bytes(row(bench, id_)["body"])) == ("CANCELLED", b"")  # type: ignore[arg-type]


def test_waiting_task_keeps_its_question(bench: Bench, erasures: ErasureStore):
    worker = bench.worker()
    id_ = bench.submit("default", collection="c", body=b"question", is_streamed=True).id
    [claim] = bench.claim(worker)
    worker.say(claim, [SECRET]).result(30)
    worker.give_back(claim).result(30)
    erasures.erase(scope(document_ids=("a",)))
    assert [one.data for one in bench.store.events(id_, 0, 9)] == [ERASED]
    assert [one.body for one in bench.claim(worker)] == [b"question"]


def test_no_byte_is_left_on_the_disk(
    bench: Bench, erasures: ErasureStore, database_bytes: Callable[..., bytes]
):
    for _ in range(20):
        done(bench, webhook="https://x.example/hook")
    worker = bench.worker()
    bench.submit("default", collection="c", is_streamed=True, body=b"question")
    [claim] = bench.claim(worker)
    worker.say(claim, [SECRET * 100]).result(30)
    body = index({"id": "a", "text": (SECRET * 10_000).decode()})
    bench.submit("default", path=INDEX, collection="c", body=body)
    with bench.database.read() as connection:
        told = connection.exec_driver_sql("SELECT * FROM webhook_deliveries").all()
    assert len(told) == 20
    assert SECRET.decode() not in repr(told)
    erasures.erase(scope(document_ids=("a",)))
    bench.database.vacuum()
    bench.writes.close()
    assert bench.count("tasks") == 22
    left = database_bytes(has_log=False)
    assert (b"question" in left, SECRET in left) == (True, False)


def test_erasure_waits_for_no_worker_and_misses_none(
    bench: Bench, erasures: ErasureStore, database_url: str
):
    """Workers of other processes go on while it erases; nobody deadlocks, nothing old is left."""
    for _ in range(40):
        bench.submit("default", collection="c", body=SECRET)
    worker, stop, failures = bench.worker(), threading.Event(), []

    def work() -> None:
        while not stop.is_set():
            for claim in bench.claim(worker, 2):
                end = TaskEnd(status="COMPLETED", output=SECRET)
                worker.finish(claim, end).add_done_callback(
                    lambda done: failures.append(done.exception()) if done.exception() else None
                )

    thread = threading.Thread(target=work)
    thread.start()
    own = Database(database_url)
    ErasureStore(own, PEPPER).erase(scope(document_ids=("a",)))
    ended = bench.store.find("default", limit=99, status="COMPLETED")
    stop.set()
    thread.join(30)
    own.close()
    assert failures == []
    before = [one for one in ended if one.is_erased]
    assert all(row(bench, one.id)["output"] is None for one in before)


def test_restored_backup_does_not_bring_tasks_back(bench: Bench, erasures: ErasureStore):
    old, other = done(bench), done(bench, collection="d")
    waiting = bench.submit("default", path=INDEX, collection="c", body=index({"id": "b"})).id
    before = {id_: row(bench, id_) for id_ in (old, waiting)}
    with bench.database.write() as connection:  # tasks are as old as the documents
        connection.exec_driver_sql("UPDATE tasks SET created_at = 1000000")
    erasures.erase(scope(document_ids=("a",)))
    with bench.database.write() as connection:
        carried = Suppressions(PEPPER).carry(connection)
        for id_, values in before.items():
            back = {name: values[name] for name in ("status", "body", "output")}
            update = schema.tasks.update().where(schema.tasks.c.id == id_)
            connection.execute(update.values(**back, is_erased=False))
        carried(connection)
    assert row(bench, old)["output"] is None
    assert row(bench, other)["output"] is not None
    assert row(bench, waiting)["status"] == "CANCELLED"
