"""S16, E3: whatever an editor of the database does is found, and its place is named."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, delete, insert, select, update

from deployments.stores.audit.chain import Head, record_hash
from deployments.stores.audit.chains import Broken
from deployments.stores.audit.checkpoints import FILE
from deployments.stores.audit.facets import known
from deployments.stores.audit.log import AuditLog
from deployments.stores.audit.rows import columns_of, position_of, record_of
from deployments.stores.audit.tables import checkpoints, day_of, day_table, facets, writers
from deployments.stores.audit.verify import Reader
from deployments.stores.audit.verify import checkpoints_of as signed_of
from deployments.types.audit import Position, Verified, Wrong
from tests.unit.stores.audit.conftest import (
    DAY_US,
    SECOND_US,
    START_US,
    HandClock,
    Opened,
    call,
    intent,
    write,
)

NUM_CASES = {True: 200, False: 20}
"""Of each of the five kinds, on SQLite 1,000 together; PostgreSQL has the same code."""


@dataclass
class Scene:
    """A log of three chains over two days, signed four times; not to the very end."""

    log: AuditLog
    folder: Path

    def rows(self, connection: Connection) -> list[Any]:
        found = []
        for day in self.days:
            table = day_table(day)
            ordered = (table.c.time_us, table.c.writer, table.c.sequence)
            found += connection.execute(select(*columns_of(table)).order_by(*ordered)).all()
        return found

    @property
    def num_cases(self) -> int:
        return NUM_CASES[self.log._database.is_sqlite]

    @property
    def days(self) -> list[str]:
        return [day_of(START_US), day_of(START_US + DAY_US)]

    def tampered(self, tamper: Callable[..., Any], *args: Any) -> tuple[Wrong | None, Any]:
        """Return what is found wrong once something was done, and what that returned.

        It is undone afterwards.
        """
        log = self.log
        signed = [*signed_of(log._database, self.folder, log.signer)]
        with log._database.write() as connection:
            done = tamper(connection, *args)
            wrong = None
            try:
                Reader(log.signer, log._key).read(connection, signed)
            except Broken as broken:
                wrong = broken.wrong
            connection.rollback()
        return wrong, done

    def found(self, tamper: Callable[..., Any], *args: Any) -> Wrong:
        """Return what is found wrong, which something must be."""
        wrong, _ = self.tampered(tamper, *args)
        assert wrong is not None
        return wrong


@pytest.fixture
def scene(opened: Opened, clock: HandClock, tmp_path: Path) -> Scene:
    logs = [opened() for _ in range(3)]
    for number in range(60):
        log = logs[number % 3]
        write(log, intent(number))
        write(log, call(number), call(1000 + number, 404), call(2000 + number, key_id="key_2"))
        clock.now_us += SECOND_US
        if number % 15 == 0:
            clock.now_us += 60 * SECOND_US
            logs[0].tick()
        if number == 30:
            clock.now_us += DAY_US
    return Scene(logs[0], tmp_path / "audit-state")


def where(row: Any) -> Any:
    table = day_table(day_of(row[0]))
    return (table.c.time_us == row[0]) & (table.c.writer == row[1]) & (table.c.sequence == row[2])


def test_sound_log_is_unbroken(scene: Scene) -> None:
    assert scene.log.verify() == Verified(240, 4, 0)
    assert scene.tampered(lambda _: None) == (None, None)


EDITS: dict[str, Any] = {
    "request_id": "req_other",
    "address": "198.51.100.7",
    "latency_us": 1,
    "tokens_in": 0,
    "tokens_out": 7,
    "error": "other",
    "touched": '[["collection","other"]]',
    "hash": bytes(32),
}


def edited(connection: Connection, scene: Scene, number: int, column: str) -> Position:
    row = scene.rows(connection)[number]
    values = {column: EDITS[column]}
    connection.execute(update(day_table(day_of(row[0]))).where(where(row)).values(values))
    return position_of(row)


def test_a17_every_edit_is_found_where_it_is(scene: Scene) -> None:
    pick = random.Random(1)
    for _ in range(scene.num_cases):
        column = pick.choice([*EDITS])
        wrong, place = scene.tampered(edited, scene, pick.randrange(240), column)
        assert wrong is not None, column
        assert (wrong.flaw, wrong.position) == ("changed", place), column


def removed(connection: Connection, scene: Scene, number: int) -> Position:
    row = scene.rows(connection)[number]
    connection.execute(delete(day_table(day_of(row[0]))).where(where(row)))
    return position_of(row)


def test_a17_every_deletion_is_found_where_it_is(scene: Scene) -> None:
    pick = random.Random(2)
    for _ in range(scene.num_cases):
        wrong, gone = scene.tampered(removed, scene, pick.randrange(240))
        assert wrong is not None
        assert wrong.position is not None
        assert wrong.position.writer == gone.writer
        is_last = wrong.flaw == "tail"
        assert wrong.position.sequence == gone.sequence - is_last


def inserted(connection: Connection, scene: Scene, number: int, shift: int, later: int) -> None:
    rows = scene.rows(connection)
    values = dict(rows[number]._mapping)
    values["time_us"] = min(values["time_us"] + shift, rows[-1][0] + 1)
    values["sequence"] += later
    connection.execute(insert(day_table(day_of(values["time_us"]))).values(values))


def test_a17_every_insertion_is_found(scene: Scene) -> None:
    pick = random.Random(3)
    for _ in range(scene.num_cases):
        shift, later = pick.randint(1, 10**6), pick.choice([0, 1, 1000])
        wrong = scene.found(inserted, scene, pick.randrange(240), shift, later)
        assert wrong.flaw in ("inserted", "missing", "changed")
        assert wrong.position is not None


def swapped(connection: Connection, scene: Scene, first: int, second: int) -> None:
    rows = scene.rows(connection)
    for row, content in ((rows[first], rows[second]), (rows[second], rows[first])):
        values = dict(content._mapping)
        for name in ("time_us", "writer", "sequence"):
            values.pop(name)
        connection.execute(update(day_table(day_of(row[0]))).where(where(row)).values(values))


def test_a17_every_reordering_is_found(scene: Scene) -> None:
    pick = random.Random(4)
    for _ in range(scene.num_cases):
        first, second = sorted(pick.sample(range(240), 2))
        assert scene.found(swapped, scene, first, second).flaw == "changed"


def cut(connection: Connection, scene: Scene, writer: int, num: int, is_hidden: bool) -> None:
    own = [row for row in scene.rows(connection) if row[1] == writer]
    for row in own[-num:]:
        connection.execute(delete(day_table(day_of(row[0]))).where(where(row)))
    if is_hidden:  # the head is put back as far as one can without the key
        last = own[-num - 1]
        values = {"sequence": last[2], "time_us": last[0], "hash": last[11]}
        connection.execute(update(writers).where(writers.c.id == writer).values(values))


def test_a17_every_cut_tail_is_found(scene: Scene) -> None:
    pick = random.Random(5)
    for case in range(scene.num_cases):
        wrong = scene.found(cut, scene, pick.randint(1, 3), pick.randint(1, 70), bool(case % 2))
        assert wrong.flaw in ("tail", "head")


def forged(connection: Connection, scene: Scene, writer: int, start: int) -> None:
    """Change a record, and compute its chain anew to the end."""
    head: Head | None = None
    for row in scene.rows(connection):
        if row[1] != writer or row[2] < start:
            if row[1] == writer:
                head = Head(writer, row[2], row[0], row[11])
            continue
        table = day_table(day_of(row[0]))
        tokens = 0 if row[2] == start else row[7]
        record = record_of(row, known(connection, day_of(row[0]))[row[3]])
        if row[2] == start:
            values = {name: getattr(record, name) for name in record.__slots__}
            record = type(record)(**{**values, "tokens_in": 0})
        assert head is not None
        digest = record_hash(head.hash, position_of(row), record)
        head = Head(writer, row[2], row[0], digest)
        values = {"hash": digest, "tokens_in": tokens}
        connection.execute(update(table).where(where(row)).values(values))
    assert head is not None
    connection.execute(update(writers).where(writers.c.id == writer).values(hash=head.hash))


def test_forged_chain_meets_a_signature_or_the_seal(scene: Scene) -> None:
    signed = scene.found(forged, scene, 2, 5)
    assert (signed.flaw, "signed" in signed.message) == ("changed", True)
    assert scene.found(forged, scene, 2, 75).flaw == "head"


def test_facet_that_is_changed_is_found(scene: Scene) -> None:
    def hide(connection: Connection) -> None:
        connection.execute(update(facets).where(facets.c.status == 404).values(status=200))

    def forget(connection: Connection) -> None:
        connection.execute(delete(facets).where(facets.c.status == 404))

    for tamper in (hide, forget):
        assert scene.found(tamper).flaw == "facet"


def test_whole_chain_or_day_that_is_gone_is_found(scene: Scene) -> None:
    def chain(connection: Connection) -> None:
        for day in scene.days:
            connection.execute(delete(day_table(day)).where(day_table(day).c.writer == 3))
        connection.execute(delete(writers).where(writers.c.id == 3))

    def day(connection: Connection) -> None:
        day_table(scene.days[1]).drop(connection)

    assert scene.found(chain).flaw == "tail"
    assert scene.found(day).flaw == "missing"


@pytest.mark.parametrize(
    "tamper",
    [
        lambda connection: connection.execute(delete(checkpoints).where(checkpoints.c.number == 4)),
        lambda connection: connection.execute(delete(checkpoints).where(checkpoints.c.number == 2)),
        lambda connection: connection.execute(
            update(checkpoints).where(checkpoints.c.number == 3).values(signature=bytes(64))
        ),
    ],
    ids=["last", "inner", "forged"],
)
def test_checkpoint_that_is_gone_or_forged_is_found(
    scene: Scene, tamper: Callable[[Connection], None]
) -> None:
    with scene.log._database.write() as connection:
        tamper(connection)
    found = scene.log.verify()
    assert found.wrong is not None
    assert found.wrong.flaw == "checkpoint"


def test_older_state_is_found_by_a_copy_of_the_file(scene: Scene, clock: HandClock) -> None:
    """Whoever takes the whole database back must take the file back, too."""
    path = scene.folder / FILE
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    with scene.log._database.write() as connection:
        connection.execute(delete(checkpoints).where(checkpoints.c.number == 4))
    path.write_bytes(b"".join(lines[:3]))
    assert scene.log.verify().wrong is None
    path.write_bytes(b"".join(lines))
    assert scene.log.verify().wrong is not None


def test_line_of_the_file_that_was_torn_is_written_again(scene: Scene, clock: HandClock) -> None:
    path = scene.folder / FILE
    path.write_bytes(path.read_bytes()[:-20])
    write(scene.log, call(1))
    clock.now_us += 61 * SECOND_US
    scene.log.tick()
    found = scene.log.verify()
    assert (found.wrong, found.num_checkpoints) == (None, 5)
