"""Writing, reading, and what dead writers leave."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import inspect, select, update

from deployments.config import AuditArgs, Settings
from deployments.errors import Conflict, StoreUnavailable
from deployments.stores.audit import batches, writer
from deployments.stores.audit.log import AuditLog, open_audit
from deployments.stores.audit.tables import day_of, day_table, intents, writers
from deployments.stores.audit.writers import INTERRUPTED
from deployments.stores.database import Database
from deployments.types.audit import INTENT, AuditFilter
from tests.servers.postgres import Postgres
from tests.unit.stores.audit.conftest import (
    DAY_US,
    SECOND_US,
    HandClock,
    Opened,
    call,
    intent,
    write,
)

ALL = AuditFilter()


def shown(log: AuditLog, wanted: AuditFilter = ALL) -> list[str]:
    return [one.record.request_id for one in log.page(wanted, limit=1000)]


def test_record_comes_back_as_it_was(log: AuditLog) -> None:
    record = call(1, 503, error="overloaded", tokens_out=9, touched=(("key", "a"), ("key", "b")))
    write(log, record)
    (found,) = log.page(ALL, limit=10)
    assert found.record == record
    assert (found.position.writer, found.position.sequence) == (1, 1)


def test_record_that_nobody_waits_for_is_written_too(
    log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MAX_AGE_S", 0.01)
    log.record(call())
    while not shown(log):
        pass


def test_records_are_read_newest_first_over_days(log: AuditLog, clock: HandClock) -> None:
    for day in range(3):
        write(log, *(call(10 * day + one) for one in range(4)))
        clock.now_us += DAY_US
    names = shown(log)
    assert names == [f"req_{10 * day + one}" for day in (2, 1, 0) for one in (3, 2, 1, 0)]
    pages, after = [], None
    while page := log.page(ALL, limit=5, after=after):
        pages.append([one.record.request_id for one in page])
        after = page[-1].position
    assert [len(page) for page in pages] == [5, 5, 2]
    assert sum(pages, []) == names


def test_filters_find_few_and_many(log: AuditLog, clock: HandClock) -> None:
    rare = {7, 199}
    records = [
        call(
            number,
            404 if number in rare else 200,
            key_id=f"key_{number % 3}",
            operation="index" if number % 2 else "search",
            tenant="acme" if number % 5 == 0 else "default",
        )
        for number in range(300)
    ]
    write(log, *records)

    def found(wanted: AuditFilter) -> list[int]:
        return [int(name.removeprefix("req_")) for name in shown(log, wanted)][::-1]

    everyone = range(300)
    assert found(AuditFilter(status=404)) == [7, 199]
    assert found(AuditFilter(status_class=4, key_id="key_1")) == [7, 199]
    assert found(AuditFilter(status=404, operation="search")) == []
    assert found(AuditFilter(key_id="key_2")) == [one for one in everyone if one % 3 == 2]
    assert found(AuditFilter(tenant="acme", operation="index")) == [
        one for one in everyone if one % 10 == 5
    ]
    first, last = (log.page(ALL, limit=300)[place].position.time_us for place in (-1, 0))
    assert found(AuditFilter(since_us=last)) == [299]
    assert found(AuditFilter(until_us=first + 1)) == [0]
    assert found(AuditFilter(since_us=last + 1)) == []
    page = log.page(AuditFilter(status=404), limit=1)
    rest = log.page(AuditFilter(status=404), limit=9, after=page[0].position)
    assert [one.record.request_id for one in (*page, *rest)] == ["req_199", "req_7"]


def test_intents_are_shown_to_who_asks_for_them(log: AuditLog) -> None:
    write(log, intent(1))
    write(log, call(1), intent(2))
    assert shown(log) == ["req_1"]
    assert shown(log, AuditFilter(status=INTENT)) == ["req_2", "req_1"]


def test_what_a_dead_writer_began_is_ended_once(opened: Opened, clock: HandClock) -> None:
    dead, first, second = opened(), opened(), opened()
    write(dead, intent(1))
    write(dead, intent(2))
    write(dead, call(2))
    first.tick()
    assert shown(first) == ["req_2"]  # it may live still
    clock.now_us += 61 * SECOND_US
    for log in (first, second, first):
        log.tick()
    found = {one.record.request_id: one.record for one in first.page(ALL, limit=10)}
    assert shown(first) == ["req_1", "req_2"]
    assert (found["req_1"].status, found["req_1"].error) == (500, INTERRUPTED)
    assert found["req_1"].touched == (("collection", "docs"),)
    assert first.verify().wrong is None


def test_what_a_living_writer_began_is_left_to_it(opened: Opened, clock: HandClock) -> None:
    one, other = opened(), opened()
    write(one, intent(1))
    for _ in range(10):
        clock.now_us += 10 * SECOND_US
        one.tick()
        other.tick()
    assert shown(other) == []
    write(one, call(1))
    with one._database.read() as connection:
        assert connection.execute(select(intents)).all() == []


def test_clock_that_falls_begins_another_chain(log: AuditLog, clock: HandClock) -> None:
    write(log, call(1))
    clock.now_us -= SECOND_US // 2
    write(log, call(2))
    clock.now_us -= DAY_US
    write(log, call(3))
    places = {one.record.request_id: one.position for one in log.page(ALL, limit=9)}
    assert [places[f"req_{n}"].writer for n in (1, 2, 3)] == [1, 1, 2]
    assert places["req_2"].time_us >= places["req_1"].time_us
    assert places["req_3"].time_us < places["req_1"].time_us
    assert log.verify().wrong is None


def test_chains_of_many_writers_do_not_fork(opened: Opened) -> None:
    logs = [opened() for _ in range(4)]

    def work(log: AuditLog, base: int) -> None:
        for number in range(25):
            write(log, intent(base + number))
            write(log, call(base + number))

    threads = [threading.Thread(target=work, args=(log, 100 * n)) for n, log in enumerate(logs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(shown(logs[0])) == 100
    found = logs[0].verify()
    assert (found.wrong, found.num_records) == (None, 200)


def test_writer_that_was_second_to_have_a_facet_is_not_refused(
    log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, failures = batches.facets.count, [Conflict("the write collides"), None]

    def collides_once(*args: object) -> None:
        count(*args)
        if failures and (failure := failures.pop(0)):
            raise failure

    monkeypatch.setattr(batches.facets, "count", collides_once)
    write(log, intent(1))
    write(log, call(1))
    found = log.verify()
    assert (found.wrong, found.num_records) == (None, 2)


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, *, after: bool) -> Iterator[None]:
    """Have commits fail, before or after they have happened."""
    commit = batches.commit

    def fails(*args: object) -> None:
        if after:
            commit(*args)
        raise StoreUnavailable("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(writer, "commit", fails)
        patch.setattr(writer, "RETRY_S", 0.01)
        yield


@pytest.mark.parametrize("after", [False, True])
def test_failed_commit_is_told_and_written_later_once(
    log: AuditLog, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    write(log, call(1))
    with failing(monkeypatch, after=after):
        log.record(call(2))
        with pytest.raises(StoreUnavailable):
            log.submit(intent(3)).result(5)
        with pytest.raises(StoreUnavailable):
            log.submit(call(4)).result(5)
        assert not log.is_well
    write(log, call(3))
    assert log.is_well
    assert shown(log) == ["req_3", "req_4", "req_2", "req_1"]
    assert log.verify().wrong is None
    assert log.num_dropped == 0


def test_what_finds_no_room_is_counted_in_the_chain(
    log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MAX_WAITING", 3)
    with failing(monkeypatch, after=False):
        with pytest.raises(StoreUnavailable):
            log.submit(call(0)).result(5)
        for number in range(1, 6):
            log.record(call(number))
    assert log.num_dropped == 3
    while len(found := log.page(ALL, limit=9)) < 4:
        pass
    gap = next(one.record for one in found if one.record.operation == writer.GAP)
    assert (gap.touched, gap.error) == ((("records", "3"),), "dropped")
    assert log.verify().wrong is None


def test_close_writes_what_waits_and_says_so(opened: Opened) -> None:
    log, other = opened(), opened()
    log.record(call(1))
    log.close()
    assert shown(other) == ["req_1"]
    with other._database.read() as connection:
        assert connection.scalar(select(writers.c.is_open)) == 0


CHILD = """
import sys
from pathlib import Path
from deployments.config import AuditArgs, Settings
from deployments.stores.audit.log import open_audit
from tests.unit.stores.audit.conftest import call, intent, write
log = open_audit(Settings(state_dir=Path(sys.argv[1])), AuditArgs())
log.start()
for number in range(100_000):
    write(log, intent(number))
    print(number, flush=True)
    write(log, call(number))
"""


def test_killed_writer_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(30)]
        child.kill()
        last = int((said + child.stdout.read().split())[-1])
    clock = HandClock()
    clock.now_us = writer.now_us() + 120 * SECOND_US
    log = open_audit(Settings(state_dir=tmp_path), AuditArgs(), clock)
    log.tick()
    ended = [one.record.request_id for one in log.page(ALL, limit=1000)]
    begun = [one.record.request_id for one in log.page(AuditFilter(status=INTENT), limit=1000)]
    assert f"req_{last}" in begun
    assert sorted(ended) == sorted(begun)
    assert log.verify().wrong is None
    log.close()


def test_keys_of_the_log_are_its_owners_alone(tmp_path: Path) -> None:
    log = open_audit(Settings(state_dir=tmp_path), AuditArgs())
    log.start()
    write(log, call())
    log.tick()
    log.close()
    for name in ("audit.key", "audit.db", "audit.checkpoints"):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0
    line = (tmp_path / "audit.checkpoints").read_text().splitlines()[0]
    assert json.loads(json.loads(line)["body"])["number"] == 1


def test_proof_of_another_process_says_the_same(tmp_path: Path) -> None:
    log = open_audit(Settings(state_dir=tmp_path), AuditArgs())
    log.start()
    write(log, call())
    assert log.verify_apart() == log.verify()
    (found,) = log.page(ALL, limit=1)
    table = day_table(day_of(found.position.time_us))
    with log._database.write() as connection:
        connection.execute(update(table).values(tokens_in=99))
    broken = log.verify_apart()
    assert broken == log.verify()
    assert broken.wrong is not None
    assert broken.wrong.position == found.position
    log.close()


def test_postgresql_keeps_the_log_apart_from_what_backups_take(
    postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.create("audited")
    log = open_audit(Settings(state_dir=tmp_path, database_url=url), AuditArgs())
    log.start()
    write(log, call())
    assert log.verify().num_records == 1
    log.close()
    main = Database(url)
    with main.read() as connection:
        assert inspect(connection).get_table_names() == []
    main.close()
    postgres.run("DROP DATABASE audited WITH (FORCE)")
