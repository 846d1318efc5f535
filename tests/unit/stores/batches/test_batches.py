"""Batches: each line once, one end however it comes, and files that say what was done."""

import json

import pytest
from sqlalchemy import select

from deployments.errors import InvalidRequest, NotFound, RateLimited
from deployments.stores import schema
from deployments.stores.batches import settling
from deployments.stores.batches.erasing import erase_lines, erase_restored_lines
from deployments.stores.database import Database
from deployments.stores.erasures import ErasureStore
from deployments.stores.tasks.queue import LATE
from deployments.types.batches import LineCounts, LineFault
from deployments.types.erasure import ErasureScope
from deployments.types.tasks import LOWEST, TaskEnd
from tests.unit.stores.batches.conftest import DAY_S, Desk, result
from tests.unit.stores.material import doc, put

GONE = {"message": "the key does not work", "code": "invalid_api_key", "param": None}


def erased(desk: Desk, tenant: str, collections: list[str]) -> int:
    with desk.database.write() as connection:
        return erase_lines(connection, tenant, collections)


def codes(text: bytes) -> dict[str, str]:
    lines = [json.loads(line) for line in text.splitlines()]
    return {line["custom_id"]: line["error"]["code"] for line in lines if "custom_id" in line}


def test_batch_comes_with_its_task(desk: Desk) -> None:
    batch = desk.batch()
    task = desk.tasks.get("acme", batch.task_id)
    assert (batch.status, task.status, task.priority) == ("validating", "PENDING", LOWEST)
    assert (task.deadline, batch.expires_at) == (desk.now + DAY_S,) * 2
    (claim,) = desk.claim()
    assert (claim.path, json.loads(claim.body)) == ("/v1/batches", {"batch_id": batch.id})
    assert (batch.metadata, batch.counts, batch.faults) == ({"a": "b"}, LineCounts(), ())


def test_input_must_be_the_tenants_and_for_batches(desk: Desk) -> None:
    foreign, other = desk.file(tenant="rival"), desk.file(purpose="user_data")
    expired = desk.file(kept_s=1.0)
    desk.now += 2
    messages = []
    for id_ in (foreign.id, expired.id, f"file_{'0' * 32}"):
        with pytest.raises(NotFound) as error:
            desk.batch(input_file_id=id_)
        messages.append((error.value.message, error.value.param))
    assert len(set(messages)) == 1
    with pytest.raises(InvalidRequest, match="purpose"):
        desk.batch(input_file_id=other.id)
    assert desk.claim() == []


def test_tenant_has_so_many_batches_under_way(desk: Desk) -> None:
    batches = [desk.batch() for _ in range(5)]
    with pytest.raises(RateLimited):
        desk.batch()
    desk.batch(tenant="rival")
    desk.batches.cancel("acme", batches[0].id)
    desk.batch()


def test_foreign_batch_is_a_missing_one(desk: Desk) -> None:
    batch = desk.batch()
    for act in (desk.batches.get, desk.batches.cancel):
        with pytest.raises(NotFound) as foreign:
            act("rival", batch.id)
        with pytest.raises(NotFound) as missing:
            act("rival", f"batch_{'0' * 32}")
        assert foreign.value.message == missing.value.message
    assert desk.batches.find("rival", limit=9, before="") == []


def test_list_pages_from_the_newest(desk: Desk) -> None:
    one, two = desk.batch(), desk.batch()
    found = desk.batches.find("acme", limit=1, before="")
    assert [batch.id for batch in found] == [two.id]
    assert [b.id for b in desk.batches.find("acme", limit=9, before=two.id)] == [one.id]


def test_done_batch_has_both_files_in_the_order_of_its_input(desk: Desk) -> None:
    batch = desk.begun(5)
    desk.done(batch, 4, 2, failed=[2])
    desk.done(batch, 5, 1, 3, failed=[5])
    final = desk.attempts.finish(batch.id, 1)
    assert final is not None
    assert (final.status, final.counts) == ("completed", LineCounts(5, 3, 2))
    assert desk.text(final.output_file_id) == b'{"n": 1}\n{"n": 3}\n{"n": 4}\n'
    assert desk.text(final.error_file_id) == b'{"n": 2}\n{"n": 5}\n'
    assert set(final.moments) == {"in_progress", "finalizing", "completed"}
    file = desk.files.get("acme", final.output_file_id or "")
    assert (file.num_bytes, file.purpose) == (27, "batch_output")
    assert (file.filename, file.expires_at) == (
        f"{batch.id}_output.jsonl",
        desk.now + 10 * DAY_S,
    )


def test_file_that_would_be_empty_is_not_made(desk: Desk) -> None:
    batch = desk.begun(2)
    desk.done(batch, 1, 2)
    final = desk.attempts.finish(batch.id, 1)
    assert final is not None
    assert final.error_file_id is None
    assert [f.id for f in desk.files.find("acme", limit=9, after="", is_ascending=True, purpose="")]


def test_line_is_written_once_and_later_attempts_do_the_rest(desk: Desk) -> None:
    batch = desk.begun(3)
    desk.done(batch, 2)
    assert desk.attempts.begin(batch.id, 2) is not None
    assert desk.attempts.record(batch.id, 1, [result(1)]) is None
    assert desk.attempts.begin(batch.id, 1) is None
    assert [line.number for line in desk.attempts.open_lines(batch.id, 1, 3)] == [1, 3]
    counts = desk.attempts.record(batch.id, 2, [result(1), result(2), result(3)])
    assert counts == LineCounts(3, 3, 0)
    assert not desk.attempts.has_open_lines(batch.id)
    assert desk.attempts.finish(batch.id, 1) is None
    final = desk.attempts.finish(batch.id, 2)
    assert final is not None
    assert final.status == "completed"


def test_accepting_again_changes_nothing(desk: Desk) -> None:
    batch = desk.begun(3)
    desk.done(batch, 1)
    assert desk.attempts.accept(batch.id, 1, [])
    assert [line.number for line in desk.attempts.open_lines(batch.id, 1, 9)] == [2, 3]


def test_refused_batch_says_why(desk: Desk) -> None:
    batch = desk.batch()
    desk.attempts.begin(batch.id, 1)
    fault = LineFault("invalid_url", "must be x", "url", 7)
    assert desk.attempts.refuse(batch.id, 1, [fault])
    found = desk.batches.get("acme", batch.id)
    assert (found.status, found.faults, found.output_file_id) == ("failed", (fault,), None)
    again = desk.attempts.finish(batch.id, 1)
    assert again is not None
    assert again.status == "failed"


def test_cancel_before_the_beginning_ends_it_at_once(desk: Desk) -> None:
    batch = desk.batch()
    ended = desk.batches.cancel("acme", batch.id)
    assert (ended.status, ended.output_file_id) == ("cancelled", None)
    assert desk.claim() == []
    assert desk.batches.cancel("acme", batch.id) == ended


def test_cancelled_batch_has_what_was_done(desk: Desk) -> None:
    batch = desk.begun(3)
    desk.done(batch, 2)
    assert desk.batches.cancel("acme", batch.id).status == "cancelling"
    desk.done(batch, 3, failed=[3])  # it ended while the cancel came
    (claim,) = desk.queue.to_stop([desk.held])
    desk.queue.finish(claim, TaskEnd(status="CANCELLED")).result(10)
    ended = desk.batches.get("acme", batch.id)
    assert (ended.status, ended.counts) == ("cancelled", LineCounts(3, 1, 1))
    assert desk.text(ended.output_file_id) == b'{"n": 2}\n'
    assert codes(desk.text(ended.error_file_id)) == {"c1": "batch_cancelled"}
    assert desk.attempts.record(batch.id, 1, [result(1)]) is None


def test_cancelled_task_is_a_cancelled_batch(desk: Desk) -> None:
    batch = desk.batch()
    desk.tasks.cancel("acme", batch.task_id)  # by DELETE /v1/tasks, or before a crash
    assert desk.batches.get("acme", batch.id).status == "cancelled"


def test_late_batch_expires_with_what_was_done(desk: Desk) -> None:
    batch = desk.begun(3)
    desk.done(batch, 1)
    claim = desk.held
    desk.now += DAY_S
    assert desk.queue.to_stop([claim]) == [claim]
    desk.queue.finish(claim, TaskEnd(status="FAILED", error=LATE)).result(10)
    ended = desk.batches.get("acme", batch.id)
    assert ended.status == "expired"
    assert desk.text(ended.output_file_id) == b'{"n": 1}\n'
    assert codes(desk.text(ended.error_file_id)) == {"c2": "batch_expired", "c3": "batch_expired"}


def test_late_batch_expires_without_any_worker(desk: Desk) -> None:
    begun, waiting = desk.begun(), desk.batch()
    desk.now += DAY_S + settling.GRACE_S
    assert desk.stores.sweep() == 2
    for batch in (waiting, begun):
        assert desk.batches.get("acme", batch.id).status == "expired"
    assert desk.tasks.get("acme", waiting.task_id).status == "CANCELLED"
    assert desk.tasks.get("acme", begun.task_id).is_cancelling


def test_failed_task_is_a_failed_batch_that_says_why(desk: Desk) -> None:
    batch = desk.begun(2)
    desk.done(batch, 1)
    end = TaskEnd(status="FAILED", error=GONE)
    desk.queue.finish(desk.held, end).result(10)
    ended = desk.batches.get("acme", batch.id)
    assert ended.status == "failed"
    assert ended.faults == (LineFault("invalid_api_key", "the key does not work"),)
    assert desk.text(ended.output_file_id) == b'{"n": 1}\n'


def test_look_at_a_batch_that_its_job_ends_leaves_the_task_alone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = desk.begun(1)
    desk.done(batch, 1)
    complete = settling.complete

    def looked_at(database: Database, id_: str, now: int) -> None:
        monkeypatch.setattr(settling, "complete", complete)
        assert desk.batches.get("acme", batch.id).status == "completed"
        complete(database, id_, now)

    monkeypatch.setattr(settling, "complete", looked_at)
    final = desk.attempts.finish(batch.id, 1)
    assert final is not None
    assert final.status == "completed"
    assert desk.queue.to_stop([desk.held]) == []
    assert desk.queue.finish(desk.held, TaskEnd(status="COMPLETED")).result(10)
    assert desk.tasks.get("acme", batch.task_id).status == "COMPLETED"


@pytest.mark.parametrize("crash_at", range(3))
def test_end_that_was_cut_off_is_ended_by_the_next_who_looks(
    desk: Desk, crash_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = desk.begun(3)
    desk.done(batch, 1)
    desk.queue.finish(desk.held, TaskEnd(status="CANCELLED")).result(10)
    names = ("complete", "_fill", "_make_file")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(settling, names[crash_at], die)
        with pytest.raises(KeyboardInterrupt):
            desk.batches.get("acme", batch.id)
    assert desk.stores.sweep() == 1
    ended = desk.batches.get("acme", batch.id)
    assert ended.status == "cancelled"
    assert desk.text(ended.output_file_id) == b'{"n": 1}\n'
    assert len(codes(desk.text(ended.error_file_id))) == 2
    assert len(desk.files.find("acme", limit=9, after="", is_ascending=True, purpose="")) == 3


def erase(desk: Desk, tenant: str, *paths: str) -> int:
    only = paths[0] if paths else None
    with desk.database.write() as connection:
        return erase_lines(connection, ErasureScope(tenant=tenant, collection=only), paths)


def test_erased_collection_is_in_no_file(desk: Desk) -> None:
    batch = desk.begun(4, ["acme/a", "acme/b", "acme/a"])
    desk.done(batch, 1, 2, 3, 4, failed=[3])
    final = desk.attempts.finish(batch.id, 1)
    assert final is not None
    assert erase(desk, "rival", "acme/a") == 0
    assert erase(desk, "acme", "acme/a", "acme/z") == 2
    assert desk.text(final.output_file_id) == b'{"n": 2}\n{"n": 4}\n'
    assert desk.text(final.error_file_id) == b""
    assert desk.files.get("acme", final.output_file_id or "").num_bytes == 18
    assert erase(desk, "acme", "acme/a") == 0
    assert erase(desk, "acme") == 1  # a person's documents, wherever they were
    assert desk.text(final.output_file_id) == b'{"n": 4}\n'


def test_answer_begun_before_an_erasure_is_not_taken(desk: Desk) -> None:
    batch = desk.begun(2, ["acme/a"])
    before = desk.attempts.open_lines(batch.id, 1, 2)
    erase(desk, "acme", "acme/a")
    results = [result(line.number, line.epoch) for line in before]
    assert desk.attempts.record(batch.id, 1, results) == LineCounts(2, 1, 0)
    (again,) = desk.attempts.open_lines(batch.id, 1, 2)
    assert again.number == 1
    counts = desk.attempts.record(batch.id, 1, [result(1, again.epoch)])
    assert counts == LineCounts(2, 2, 0)


def test_erasing_documents_erases_what_was_said_of_them(desk: Desk) -> None:
    put(desk.database, [doc("d", "a secret")], collection="acme/a")
    batch = desk.begun(2, ["acme/a"])
    desk.done(batch, 1, 2)
    store = ErasureStore(desk.database, b"pepper" * 8)
    store.erase(ErasureScope(tenant="acme", collection="acme/a", document_ids=("d",)))
    final = desk.attempts.finish(batch.id, 1)
    assert final is not None
    assert desk.text(final.output_file_id) == b'{"n": 2}\n'


def test_restored_backup_brings_no_erased_answer_back(desk: Desk) -> None:
    put(desk.database, [doc("d", "a secret")], collection="acme/a")
    batch = desk.begun(2, ["acme/a"])
    store = ErasureStore(desk.database, b"pepper" * 8)
    store.erase(ErasureScope(tenant="acme", collection="acme/a", document_ids=("d",)))
    (line, _) = desk.attempts.open_lines(batch.id, 1, 2)
    desk.attempts.record(batch.id, 1, [result(1, line.epoch), result(2)])  # as of before
    with desk.database.write() as connection:
        erase_restored_lines(connection)
    final = desk.attempts.finish(batch.id, 1)
    assert final is not None
    assert desk.text(final.output_file_id) == b'{"n": 2}\n'


def test_deleted_output_takes_its_lines_along(desk: Desk) -> None:
    batch = desk.begun(2)
    desk.done(batch, 1, 2, failed=[2])
    final = desk.attempts.finish(batch.id, 1)
    assert final is not None
    desk.files.delete("acme", final.output_file_id or "")
    with desk.database.read() as connection:
        assert connection.scalars(select(schema.batch_lines.c.line)).all() == [2]
    assert desk.text(final.error_file_id) == b'{"n": 2}\n'


def test_old_batch_is_forgotten_after_its_files(desk: Desk) -> None:
    batch = desk.begun(1)
    desk.done(batch, 1)
    desk.attempts.finish(batch.id, 1)
    desk.now += 91 * DAY_S + 1
    while desk.stores.sweep():
        pass
    assert desk.batches.find("acme", limit=9, before="") == []
    with desk.database.read() as connection:
        assert connection.execute(select(schema.batch_lines)).all() == []
