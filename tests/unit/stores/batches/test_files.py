"""Files: whole or not there, of one tenant, up to a bound, until their time."""

import pytest
from sqlalchemy import func, select

from deployments.errors import Conflict, NotFound, PayloadTooLarge
from deployments.stores import schema
from deployments.types.batches import FileOrder
from tests.unit.stores.batches.conftest import Desk

FOREVER = {"purpose": "user_data"}


def num_parts(desk: Desk) -> int:
    with desk.database.read() as connection:
        return connection.scalars(select(func.count()).select_from(schema.file_parts)).one()


def order(num_bytes: int = 3, tenant: str = "acme") -> FileOrder:
    return FileOrder(tenant=tenant, purpose="batch", filename="f", num_bytes=num_bytes)


def ids(desk: Desk, **said: object) -> list[str]:
    given = {"limit": 10, "after": "", "is_ascending": False, "purpose": "", **said}
    return [file.id for file in desk.files.find("acme", **given)]  # type: ignore[arg-type]


def test_file_is_read_back_as_it_was_sent(desk: Desk) -> None:
    file = desk.file(b"abc", b"\x00\xff", b"end")
    assert desk.files.get("acme", file.id) == file
    assert (file.num_bytes, file.filename, file.created_at) == (8, "in.jsonl", 1_000_000)
    assert list(desk.files.pieces(file)) == [b"abc", b"\x00\xff", b"end"]


def test_file_is_not_there_before_it_is_whole_and_dead_uploads_go(desk: Desk) -> None:
    id_ = desk.files.begin(order(), max_files=9, max_bytes=99)
    desk.files.add(id_, 0, b"abc")
    with pytest.raises(NotFound):
        desk.files.get("acme", id_)
    assert ids(desk) == []
    assert desk.files.sweep() == 0
    desk.now += 3601
    assert desk.files.sweep() == 1
    assert num_parts(desk) == 0


def test_discarded_file_leaves_nothing(desk: Desk) -> None:
    id_ = desk.files.begin(order(), max_files=9, max_bytes=99)
    desk.files.add(id_, 0, b"abc")
    desk.files.discard(id_)
    assert num_parts(desk) == 0


def test_list_pages_both_ways_and_by_purpose(desk: Desk) -> None:
    one, two = desk.file(), desk.file()
    other = desk.file(**FOREVER)
    desk.file(tenant="rival")
    assert ids(desk) == [other.id, two.id, one.id]
    assert ids(desk, after=two.id) == [one.id]
    assert ids(desk, is_ascending=True, after=one.id) == [two.id, other.id]
    assert ids(desk, limit=1, is_ascending=True) == [one.id]
    assert ids(desk, purpose="batch") == [two.id, one.id]


def test_foreign_file_is_a_missing_one(desk: Desk) -> None:
    file = desk.file()
    for act in (desk.files.get, desk.files.delete):
        with pytest.raises(NotFound) as foreign:
            act("rival", file.id)
        with pytest.raises(NotFound) as missing:
            act("rival", f"file_{'0' * 32}")
        assert foreign.value.message == missing.value.message
    assert desk.text(file.id) == b"{}\n"


def test_tenant_has_so_many_files_and_bytes(desk: Desk) -> None:
    desk.file(b"12345")
    with pytest.raises(PayloadTooLarge, match="1 files"):
        desk.files.begin(order(), max_files=1, max_bytes=99)
    with pytest.raises(PayloadTooLarge, match="7 bytes"):
        desk.files.begin(order(3), max_files=9, max_bytes=7)
    desk.files.begin(order(2), max_files=9, max_bytes=7)
    desk.files.begin(order(7, "rival"), max_files=1, max_bytes=7)


def test_file_goes_when_its_time_has_come(desk: Desk) -> None:
    file, stays = desk.file(kept_s=60.0), desk.file(**FOREVER)
    desk.now += 60
    with pytest.raises(NotFound):
        desk.files.get("acme", file.id)
    assert ids(desk) == [stays.id]
    assert desk.files.sweep() == 1
    assert num_parts(desk) == 1


def test_deleted_file_is_gone_and_its_readers_notice(desk: Desk) -> None:
    file = desk.file(b"a", b"b")
    pieces = desk.files.pieces(file)
    assert next(pieces) == b"a"
    desk.files.delete("acme", file.id)
    with pytest.raises(NotFound):
        next(pieces)
    with pytest.raises(NotFound):
        desk.files.delete("acme", file.id)
    assert num_parts(desk) == 0


def test_input_of_a_batch_outlives_its_time_and_is_not_deleted(desk: Desk) -> None:
    file = desk.file(kept_s=60.0)
    batch = desk.batch(input_file_id=file.id)
    with pytest.raises(Conflict):
        desk.files.delete("acme", file.id)
    desk.now += 61
    assert desk.files.sweep() == 0
    assert desk.files.input_of(batch) == file
    desk.batches.cancel("acme", batch.id)
    assert desk.files.sweep() == 1
