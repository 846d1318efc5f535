"""What workers do with tasks: who gets which, whose word counts, what becomes of the dead's."""

import threading
from collections import Counter
from contextlib import contextmanager

import pytest

from deployments.errors import StoreUnavailable
from deployments.stores.database import Database
from deployments.stores.grouping import GroupedWrites
from deployments.stores.tasks.ending import MAX_LOST, RETRY
from deployments.stores.tasks.queue import MAX_FAILURES
from deployments.types.tasks import Backlog, TaskEnd, TaskProgress
from tests.unit.stores.tasks.conftest import DONE, ERROR, START, Bench

HOUR = 3600.0


def test_urgent_ones_first_then_the_oldest(bench: Bench):
    low, old, young, high = (bench.submit(priority=p).id for p in (1, 5, 5, 9))
    worker = bench.worker()
    assert [one.task_id for one in bench.claim(worker, 3)] == [high, old, young]
    assert [one.task_id for one in bench.claim(worker, 3)] == [low]
    assert bench.claim(worker, 3) == []


def test_claim_has_what_is_to_be_done(bench: Bench):
    id_ = bench.submit(body=b'{"a": 1}', is_streamed=True, deadline=START + 9).id
    [claim] = bench.claim(bench.worker())
    assert (claim.task_id, claim.attempt, claim.body) == (id_, 1, b'{"a": 1}')
    assert (claim.tenant, claim.is_streamed, claim.deadline) == ("acme", True, START + 9)
    state = bench.get(id_)
    assert (state.status, state.attempt, state.started_at) == ("RUNNING", 1, START)


@pytest.mark.parametrize("room", [1, 4])
def test_many_tasks_of_one_tenant_starve_no_other(bench: Bench, room: int):
    for _ in range(50):
        bench.submit("greedy")
    late = [bench.submit(f"t{i}").id for i in range(2)]
    worker, order = bench.worker(), []
    for _ in range(8 // room):
        claims = bench.claim(worker, room)
        order += [claim.task_id for claim in claims]
        for claim in claims:
            worker.finish(claim, DONE).result(30)
    assert set(late) <= set(order)
    assert len(order) == 8


def test_tenant_with_the_fewest_running_is_next(bench: Bench):
    for _ in range(6):
        bench.submit("a")
    worker = bench.worker()
    bench.claim(worker, 3)
    for _ in range(6):
        bench.submit("b")
    got = Counter(one.tenant for one in bench.claim(bench.worker(), 5))
    assert got == {"b": 4, "a": 1}


def test_urgency_goes_before_fairness(bench: Bench):
    for _ in range(4):
        bench.submit("a", priority=6)
    bench.submit("b", priority=5)
    assert {one.tenant for one in bench.claim(bench.worker(), 4)} == {"a"}


def test_tenant_whose_tasks_all_wait_for_their_time_takes_no_place(bench: Bench):
    for tenant in ("a", "b", "c"):
        bench.submit(tenant, not_before=START + 60)
    mine = bench.submit("d").id
    assert [one.task_id for one in bench.claim(bench.worker())] == [mine]


def test_task_waits_for_its_time(bench: Bench):
    worker, id_ = bench.worker(), bench.submit(not_before=START + 60).id
    assert bench.claim(worker) == []
    assert not worker.has_ready()
    assert worker.backlog() == Backlog(ready=0, running=0, scheduled=1)
    bench.now += 60
    assert worker.has_ready()
    assert worker.backlog() == Backlog(ready=1, running=0, scheduled=0)
    assert [one.task_id for one in bench.claim(worker)] == [id_]
    assert worker.backlog() == Backlog(ready=0, running=1, scheduled=0)


def test_young_tasks_are_left_to_those_who_were_told(bench: Bench):
    worker, young = bench.worker(), bench.submit().id
    assert bench.claim(worker, min_age_s=10) == []
    bench.now += 11
    assert [one.task_id for one in bench.claim(worker, min_age_s=10)] == [young]


def test_deadline_before_the_beginning_fails_the_task(bench: Bench):
    worker, id_ = bench.worker(), bench.submit(deadline=START + 5, webhook="https://x.example").id
    bench.now += 6
    assert bench.claim(worker) == []
    state = bench.get(id_)
    assert (state.status, state.error["code"]) == ("FAILED", "deadline_exceeded")  # type: ignore[index]
    assert bench.count("webhook_deliveries") == 1


def test_deadline_stops_what_runs(bench: Bench):
    worker = bench.worker()
    bench.submit(deadline=START + 5)
    claims = bench.claim(worker)
    assert worker.to_stop(claims) == []
    bench.now += 6
    assert worker.to_stop(claims) == claims


def test_end_is_written_down_once(bench: Bench):
    worker, id_ = bench.worker(), bench.submit(webhook="https://x.example", kept_s=60).id
    [claim] = bench.claim(worker)
    assert worker.finish(claim, DONE).result(30)
    assert not worker.finish(claim, TaskEnd(status="FAILED", error=ERROR)).result(30)
    state = bench.get(id_)
    assert (state.status, state.output, state.usage) == ("COMPLETED", DONE.output, DONE.usage)
    assert (state.completed_at, state.expires_at) == (START, START + 60)
    assert bench.count("webhook_deliveries") == 1


def test_buried_worker_is_not_heard(bench: Bench):
    dead, id_ = bench.worker(), bench.submit(is_streamed=True).id
    [old] = bench.claim(dead)
    dead.say(old, [b"1", b"2"]).result(30)
    other = bench.worker()
    assert other.bury(dead.worker, other.beats()[dead.worker]) == 1
    said = (dead.finish(old, DONE), dead.say(old, [b"x"]), dead.give_back(old))
    said += (dead.progress(old, TaskProgress(1, 2)), dead.fail(old, ERROR))
    assert [one.result(30) for one in said] == [False] * 5
    assert (dead.beat(), bench.claim(dead), dead.to_stop([old])) == (False, [], [old])
    [new] = bench.claim(other)
    assert (new.task_id, new.attempt) == (id_, 2)
    assert not dead.finish(old, DONE).result(30)
    assert other.say(new, [b"3"]).result(30)
    assert [one.number for one in bench.store.events(id_, 0, 9)] == [1, 2, 3]
    assert other.progress(new, TaskProgress(1, 2, 0)).result(30)
    assert other.finish(new, DONE).result(30)
    assert bench.get(id_).progress == TaskProgress(1, 2, 0)


def test_earlier_attempt_of_the_same_worker_is_not_heard(bench: Bench):
    worker, id_ = bench.worker(), bench.submit().id
    [old] = bench.claim(worker)
    worker.give_back(old).result(30)
    [new] = bench.claim(worker)
    assert not worker.finish(old, TaskEnd(status="FAILED", error=ERROR)).result(30)
    assert worker.to_stop([old, new]) == [old]
    assert worker.finish(new, DONE).result(30)
    assert bench.get(id_).status == "COMPLETED"


def test_worker_that_beat_again_is_not_buried(bench: Bench):
    alive, other = bench.worker(), bench.worker()
    bench.submit()
    bench.claim(alive)
    seen = other.beats()[alive.worker]
    assert alive.beat()
    assert other.bury(alive.worker, seen) == 0
    assert alive.beat()


def test_task_of_which_workers_die_is_quarantined(bench: Bench):
    id_, undertaker = bench.submit(webhook="https://x.example").id, bench.worker()
    for attempt in range(1, MAX_LOST + 1):
        victim = bench.worker()
        assert [one.attempt for one in bench.claim(victim)] == [attempt]
        undertaker.bury(victim.worker, 0)
    state = bench.get(id_)
    assert (state.status, state.error["code"]) == ("FAILED", "task_quarantined")  # type: ignore[index]
    assert bench.count("webhook_deliveries") == 1
    assert bench.store.retry("acme", id_).status == "PENDING"
    undertaker.enlist()
    [again] = bench.claim(undertaker)
    assert again.attempt == MAX_LOST + 1


def test_cancelled_task_of_a_dead_worker_ends(bench: Bench):
    dead, id_ = bench.worker(), bench.submit().id
    bench.claim(dead)
    bench.store.cancel("acme", id_)
    bench.worker().bury(dead.worker, 0)
    assert bench.get(id_).status == "CANCELLED"


@pytest.mark.parametrize("how", ["give_back", "fail", "leave"])
def test_cancelled_task_that_is_put_back_ends(bench: Bench, how: str):
    worker, id_ = bench.worker(), bench.submit().id
    [claim] = bench.claim(worker)
    bench.store.cancel("acme", id_)
    if how == "leave":
        worker.leave()
    else:
        getattr(worker, how)(claim, *([ERROR] if how == "fail" else [])).result(30)
    assert bench.get(id_).status == "CANCELLED"


def test_failures_have_growing_pauses_and_an_end(bench: Bench):
    worker, id_ = bench.worker(), bench.submit().id
    pauses = []
    for _ in range(MAX_FAILURES):
        since = bench.now
        while not (claims := bench.claim(worker)):
            bench.now += 0.25
        pauses.append(bench.now - since)
        assert worker.fail(claims[0], ERROR).result(30)
    assert pauses[0] == 0
    assert 0.5 <= pauses[1] <= 1.25
    assert pauses[2] >= 1
    assert 4 <= pauses[-1] <= 8.25
    state = bench.get(id_)
    assert (state.status, state.error, state.attempt) == ("FAILED", ERROR, MAX_FAILURES)


def test_asked_pause_is_bounded(bench: Bench):
    worker = bench.worker()
    bench.submit()
    worker.fail(bench.claim(worker)[0], ERROR, 10 * HOUR).result(30)
    bench.now += RETRY.max_s - 1
    assert bench.claim(worker) == []
    bench.now += 1
    assert len(bench.claim(worker)) == 1


def test_leaving_worker_gives_back_without_blame(bench: Bench):
    id_ = bench.submit().id
    for _ in range(MAX_LOST + 2):
        worker = bench.worker()
        assert len(bench.claim(worker)) == 1
        worker.leave()
        assert bench.claim(worker) == []
    assert bench.get(id_).status == "PENDING"
    assert bench.count("task_workers") == 0


def test_orphans_are_given_back(bench: Bench):
    gone, worker, id_ = bench.worker(), bench.worker(), bench.submit().id
    bench.claim(gone)
    assert worker.give_back_orphans() == 0
    with bench.database.write() as connection:
        connection.exec_driver_sql(f"DELETE FROM task_workers WHERE id = '{gone.worker}'")  # noqa: S608
    assert worker.give_back_orphans() == 1
    assert [one.task_id for one in bench.claim(worker)] == [id_]


@pytest.mark.parametrize("jump_s", [HOUR, -HOUR])
def test_clock_that_jumps_loses_nothing(bench: Bench, jump_s: float):
    worker = bench.worker()
    failed, given, running = (bench.submit().id for _ in range(3))
    claims = {claim.task_id: claim for claim in bench.claim(worker, 3)}
    worker.fail(claims[failed], ERROR, 30).result(30)
    worker.give_back(claims[given], 30).result(30)
    bench.now += jump_s
    fresh = bench.submit().id
    assert worker.to_stop([claims[running]]) == []
    bench.now += 31  # what was to be tried again soon is, whatever the time is
    again = {claim.task_id: claim for claim in bench.claim(worker, 9)}
    assert set(again) == {failed, given, fresh}
    for claim in (*again.values(), claims[running]):
        assert worker.finish(claim, DONE).result(30)
    assert worker.backlog() == Backlog()
    assert worker.expire() == 0
    bench.now += 86_400 + abs(jump_s)
    assert worker.expire() == 4


def test_two_workers_never_hold_one_task(bench: Bench):
    num_tasks = 60
    ids = {bench.submit(f"t{i % 7}", priority=i % 3).id for i in range(num_tasks)}
    taken: list[str] = []
    start = threading.Barrier(4)

    def work() -> None:
        queue, misses = bench.worker(), 0
        start.wait(30)
        while misses < 20:
            claims = bench.claim(queue, 3)
            misses = 0 if claims else misses + 1
            taken.extend(claim.task_id for claim in claims)
            for claim in claims:
                assert queue.finish(claim, DONE).result(30)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(taken) == sorted(ids)


def test_workers_of_several_processes_never_hold_one_task(bench: Bench, database_url: str):
    """Each has a connection and a writer of its own: only the database stands between them."""

    ids = {bench.submit(f"t{i % 3}").id for i in range(60)}
    taken: list[str] = []
    start = threading.Barrier(3)

    def work() -> None:
        database = Database(database_url)
        writes = GroupedWrites(database, "own")
        own, misses = Bench(database, writes), 0
        queue = own.worker()
        start.wait(30)
        while misses < 20:
            claims = own.claim(queue, 2)
            misses = 0 if claims else misses + 1
            taken.extend(claim.task_id for claim in claims)
            for claim in claims:
                assert queue.finish(claim, DONE).result(30)
        writes.close()
        database.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(taken) == sorted(ids)


def test_claim_whose_answer_was_lost_is_made_all_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    worker, id_ = bench.worker(), bench.submit().id
    whole = bench.database.write

    @contextmanager
    def forgetful():
        with whole() as connection:
            yield connection
        raise StoreUnavailable("the database did not answer")

    monkeypatch.setattr(bench.database, "write", forgetful)
    with pytest.raises(StoreUnavailable):
        bench.claim(worker)
    monkeypatch.setattr(bench.database, "write", whole)
    assert bench.get(id_).status == "RUNNING"
    [claim] = bench.claim(worker)
    assert (claim.task_id, claim.attempt) == (id_, 1)
    assert bench.claim(worker) == [], "once is enough"
    assert worker.finish(claim, DONE).result(30)


def test_events_are_said_once_when_the_answer_was_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    worker, id_ = bench.worker(), bench.submit(is_streamed=True).id
    [claim] = bench.claim(worker)
    whole, said, losses = bench.database.write, [], iter([False, True])

    @contextmanager
    def forgetful():
        with whole() as connection:
            yield connection
        if next(losses, False):
            raise StoreUnavailable("the database did not answer")

    monkeypatch.setattr(bench.database, "write", forgetful)

    def together(_: object) -> None:
        said.extend(worker.say(claim, [b"%d" % i]) for i in range(2))

    bench.writes.submit(together).result(30)  # what is put in meanwhile is one group
    assert all(one.result(30) for one in said)
    assert [one.data for one in bench.store.events(id_, 0, 9)] == [b"0", b"1"]


def test_what_was_kept_long_enough_goes_with_all_that_belongs_to_it(bench: Bench):
    worker, kept = bench.worker(), bench.submit(kept_s=HOUR).id
    bench.submit(kept_s=60, is_streamed=True)
    told = bench.submit(kept_s=60, webhook="https://x.example").id
    for claim in bench.claim(worker, 3):
        if claim.is_streamed:
            worker.say(claim, [b"secret"]).result(30)
        worker.finish(claim, DONE).result(30)
    bench.now += 59
    assert worker.expire() == 0
    bench.now += 1
    assert worker.expire() == 2
    assert [one.id for one in bench.store.find("acme", limit=9)] == [kept]
    assert (bench.count("task_events"), bench.count("webhook_deliveries")) == (0, 1)
    with bench.database.read() as connection:
        row = connection.exec_driver_sql("SELECT * FROM webhook_deliveries").mappings().one()
    assert (row["subject"], row["status"]) == (told, "PENDING"), "it is told all the same"
