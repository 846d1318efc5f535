"""Answers that are given again: one right to answer, no other's answer, nothing in clear."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from deployments.errors import Conflict, DatabaseDamaged, IdempotencyMismatch
from deployments.stores import replays as module
from deployments.stores import schema
from deployments.stores.database import Database
from deployments.stores.replays import KEPT_S, MAX_ANSWER_BYTES, Answer, Replays, Ticket

MADE = Answer(201, "application/json", b'{"key": "rs_shown_once"}')


class Clock:
    now_s = 1_800_000_000.0

    def time(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def replays(database: Database, tmp_path: Path) -> Replays:
    return Replays(database, tmp_path / "state")


def begin(
    replays: Replays, caller: str = "key_1", operation: str = "create", key: str = "a"
) -> Ticket | Answer:
    return replays.begin(caller, operation, key, b"{}", 60)


def ticket(begun: Ticket | Answer) -> Ticket:
    assert isinstance(begun, Ticket)
    return begun


def test_answer_is_given_again(replays: Replays, clock: Clock):
    replays.finish(ticket(begin(replays)), MADE)
    assert begin(replays) == begin(replays) == MADE


def test_request_that_runs_is_not_made_again_until_it_is_dead(replays: Replays, clock: Clock):
    first = ticket(begin(replays))
    with pytest.raises(Conflict) as caught:
        begin(replays)
    assert caught.value.retry_after_s == 1
    clock.now_s += 60
    assert begin(replays) == first
    with pytest.raises(Conflict):
        begin(replays)


def test_request_that_failed_may_be_made_again(replays: Replays, clock: Clock):
    replays.give_up(ticket(begin(replays)))
    replays.finish(ticket(begin(replays)), MADE)
    replays.give_up(Ticket(ticket(begin(replays, key="b")).id))
    assert begin(replays) == MADE


def test_key_of_another_request_is_refused(replays: Replays, clock: Clock):
    replays.finish(ticket(begin(replays)), MADE)
    with pytest.raises(IdempotencyMismatch):
        replays.begin("key_1", "create", "a", b'{"other": 1}', 60)
    assert begin(replays) == MADE


def test_others_keys_and_operations_are_their_own(replays: Replays, clock: Clock):
    replays.finish(ticket(begin(replays)), MADE)
    for other in ({"caller": "key_2"}, {"operation": "load"}, {"key": "b"}):
        assert isinstance(begin(replays, **other), Ticket)


def test_large_answer_is_not_kept(replays: Replays, clock: Clock):
    large = Answer(200, "application/json", b"x" * (MAX_ANSWER_BYTES + 1))
    replays.finish(ticket(begin(replays)), large)
    assert isinstance(begin(replays), Ticket)


def test_what_has_expired_goes(replays: Replays, clock: Clock, database: Database):
    for number in range(5):
        replays.finish(ticket(begin(replays, key=str(number))), MADE)
    clock.now_s += KEPT_S + 1
    assert isinstance(begin(replays, key="0"), Ticket)
    with database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(schema.replays)) == 1


def test_of_many_at_once_one_gets_the_right(replays: Replays, clock: Clock):
    def try_(_: int) -> bool:
        try:
            return isinstance(begin(replays), Ticket)
        except Conflict:
            return False

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(try_, range(8))) == 1


def test_nothing_is_stored_in_clear_and_moved_answers_are_damage(
    replays: Replays, clock: Clock, database: Database
):
    replays.finish(ticket(begin(replays)), MADE)
    begin(replays, key="b")
    with database.write() as connection:
        rows = connection.execute(text("SELECT * FROM replays")).all()
        assert not any(b"shown_once" in bytes(row.answer or b"") for row in rows)
        assert "key_1" not in str(rows)
        [answered] = [row for row in rows if row.answer is not None]
        table = schema.replays
        connection.execute(
            table.update().where(table.c.answer.is_(None)).values(answer=answered.answer)
        )
    with pytest.raises(DatabaseDamaged):
        begin(replays, key="b")
