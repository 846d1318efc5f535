"""E4: kept as long as promised, then in files that prove themselves; what stays is proved still."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from sqlalchemy import delete, select, update

from deployments.config import AuditArgs
from deployments.errors import DatabaseDamaged, StoreUnavailable, UnreadableDocument
from deployments.stores.audit import archives, parquet, retention
from deployments.stores.audit.chains import Broken
from deployments.stores.audit.log import AuditLog
from deployments.stores.audit.tables import archives as archives_table
from deployments.stores.audit.tables import day_of, day_table, days, facets
from deployments.stores.seals import check_seal
from deployments.types.audit import AuditFilter
from tests.unit.stores.audit.conftest import DAY_US, START_US, HandClock, call, intent, write

ALL = AuditFilter()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit-state"


@pytest.fixture
def three_days(log: AuditLog, clock: HandClock) -> AuditLog:
    """Write a chain over three days."""
    for day in range(3):
        write(log, intent(day), call(day), call(10 + day))
        clock.now_us = START_US + (day + 1) * DAY_US
    return log


def stored_days(log: AuditLog) -> list[str]:
    with log._database.read() as connection:
        return sorted(connection.scalars(select(days.c.day)))


@pytest.mark.parametrize("num_days", [0, 179])
def test_less_than_180_days_is_refused(num_days: int) -> None:
    with pytest.raises(ValidationError):
        AuditArgs(retention_days=num_days)


def test_day_179_stays_and_day_181_goes(three_days: AuditLog, clock: HandClock) -> None:
    clock.now_us = START_US + 179 * DAY_US
    three_days.tick()
    assert len(stored_days(three_days)) == 3
    clock.now_us = START_US + 182 * DAY_US
    three_days.tick()
    assert stored_days(three_days) == [day_of(START_US + day * DAY_US) for day in (2,)]


def test_archive_holds_every_record_and_its_seal(
    three_days: AuditLog, clock: HandClock, folder: Path
) -> None:
    clock.now_us = START_US + 181 * DAY_US
    three_days.tick()
    (path,) = (folder / archives.FOLDER).iterdir()
    with path.open("rb") as file:
        check_seal(file)
    rows = pq.read_table(path, page_checksum_verification=True).to_pylist()
    assert [(row["request_id"], row["status"]) for row in rows] == [
        ("req_0", 0),
        ("req_0", 200),
        ("req_10", 200),
    ]
    assert rows[1]["key_id"] == "key_1"
    assert path.stat().st_mode & 0o077 == 0


def test_purge_does_not_break_the_proof(three_days: AuditLog, clock: HandClock) -> None:
    clock.now_us = START_US + 182 * DAY_US
    three_days.tick()
    found = three_days.verify()
    assert (found.wrong, found.num_archived_days, found.num_records) == (None, 2, 3)
    write(three_days, call(99))
    assert three_days.verify().wrong is None
    assert [one.record.request_id for one in three_days.page(ALL, limit=9)][0] == "req_99"


def test_everything_may_be_archived(three_days: AuditLog, clock: HandClock) -> None:
    clock.now_us = START_US + 400 * DAY_US
    three_days.tick()
    assert stored_days(three_days) == []
    assert three_days.verify().wrong is None
    assert three_days.page(ALL, limit=9) == []
    write(three_days, call(99))
    assert three_days.verify().wrong is None


def test_archive_row_that_is_gone_or_forged_is_found(
    three_days: AuditLog, clock: HandClock
) -> None:
    clock.now_us = START_US + 182 * DAY_US
    three_days.tick()
    table = archives_table
    with three_days._database.write() as connection:
        connection.execute(update(table).where(table.c.number == 1).values(signature=bytes(64)))
    wrong = three_days.verify().wrong
    assert wrong is not None
    assert wrong.flaw == "archive"
    with three_days._database.write() as connection:
        connection.execute(delete(table).where(table.c.number == 2))
    assert three_days.verify().wrong is not None


def test_file_that_is_gone_or_changed_is_found(
    three_days: AuditLog, clock: HandClock, folder: Path
) -> None:
    clock.now_us = START_US + 182 * DAY_US
    three_days.tick()
    with three_days._database.read() as connection:
        found = archives.read(connection, three_days.signer)
    archives.check_files(found, folder)
    path = folder / archives.FOLDER / found[0].file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(Broken, match="not what was written"):
        archives.check_files(found, folder)
    with path.open("rb") as file, pytest.raises(UnreadableDocument):
        check_seal(file)
    path.unlink()
    with pytest.raises(Broken, match="not there"):
        archives.check_files(found, folder)


def test_day_that_was_tampered_with_stays(
    three_days: AuditLog, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    table = day_table(day_of(START_US))
    with three_days._database.write() as connection:
        connection.execute(update(table).values(tokens_in=0))
    clock.now_us = START_US + 182 * DAY_US
    three_days.tick()
    assert len(stored_days(three_days)) == 3
    assert "it is wrong" in caplog.text
    retention._broken.clear()


def test_disk_that_is_full_loses_nothing(
    three_days: AuditLog, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    clock.now_us = START_US + 182 * DAY_US
    with monkeypatch.context() as patch:
        patch.setattr(parquet, "write_file", full)
        with pytest.raises(StoreUnavailable, match="No space"):
            three_days.tick()
    assert len(stored_days(three_days)) == 3
    three_days.tick()
    assert len(stored_days(three_days)) == 1


def test_day_that_a_wrong_clock_writes_again_is_archived_again(
    three_days: AuditLog, clock: HandClock
) -> None:
    later = START_US + 182 * DAY_US
    clock.now_us = later
    three_days.tick()
    clock.now_us = START_US
    write(three_days, call(50))
    clock.now_us = later
    three_days.tick()
    found = three_days.verify()
    assert (found.wrong, found.num_archived_days) == (None, 3)


def test_day_that_is_written_to_meanwhile_goes_later(
    three_days: AuditLog, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = START_US + 181 * DAY_US
    written = retention._written

    def and_written_to(*args: object) -> object:
        found = written(*args)
        clock.now_us = START_US
        write(three_days, call(50))
        clock.now_us = later
        return found

    clock.now_us = later
    with monkeypatch.context() as patch:
        patch.setattr(retention, "_written", and_written_to)
        three_days.tick()
    assert len(stored_days(three_days)) == 3
    three_days.tick()
    assert len(stored_days(three_days)) == 2
    found = three_days.verify()
    assert (found.wrong, found.num_archived_days) == (None, 1)


def test_export_of_a_broken_log_says_so(three_days: AuditLog, tmp_path: Path) -> None:
    with three_days._database.write() as connection:
        connection.execute(delete(facets))
    with pytest.raises(DatabaseDamaged, match="broken"):
        three_days.export(tmp_path / "out.parquet", ALL)
    assert list(tmp_path.glob("*.parquet*")) == []


@pytest.mark.parametrize("step", ["_drop", "archives.insert", "parquet.sync_folder"])
def test_archiving_that_dies_at_any_step_is_done_again(
    three_days: AuditLog, clock: HandClock, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def dies(*_: object, **__: object) -> None:
        raise StoreUnavailable("the process died")

    clock.now_us = START_US + 182 * DAY_US
    with monkeypatch.context() as patch:
        patch.setattr(f"deployments.stores.audit.retention.{step}", dies)
        with pytest.raises(StoreUnavailable):
            three_days.tick()
    assert len(stored_days(three_days)) == 3
    assert three_days.verify().num_archived_days == 0
    three_days.tick()
    found = three_days.verify(with_files=True)
    assert (found.wrong, found.num_archived_days) == (None, 2)
