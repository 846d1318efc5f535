"""Deliveries: who tries which, when it is tried again, when nobody does any more."""

import pytest

from deployments.errors import Conflict, NotFound
from deployments.stores.database import Database
from deployments.stores.grouping import GroupedWrites
from deployments.stores.webhooks import HOLD_S, MAX_ATTEMPTS, RETRY, WebhookStore
from deployments.types.webhooks import Delivery
from tests.unit.stores.tasks.conftest import START, Bench

HOUR = 3600.0


@pytest.fixture
def bench(database: Database):
    writes = GroupedWrites(database, "tasks")
    yield Bench(database, writes)
    writes.close()


@pytest.fixture
def store(bench: Bench) -> WebhookStore:
    return WebhookStore(bench.database, bench.clock)


def end(bench: Bench, tenant: str = "acme", **given: object) -> str:
    """Have a task end of which somebody is told; return its id."""
    id_ = bench.submit(tenant, webhook="https://x.example/hook", **given).id
    bench.store.cancel(tenant, id_)
    return id_


def claim(store: WebhookStore, max_deliveries: int = 10) -> list[Delivery]:
    return store.claim(max_deliveries, {}, 100)


def test_end_of_a_task_is_due_at_once(bench: Bench, store: WebhookStore):
    id_ = end(bench)
    [one] = claim(store)
    assert (one.subject, one.event, one.url) == (id_, "task.cancelled", "https://x.example/hook")
    assert (one.tenant, one.status, one.num_attempts) == ("acme", "PENDING", 1)
    assert claim(store) == [], "another has it"
    assert store.succeed(one, 204)
    [told] = store.find("acme", limit=9)
    assert (told.status, told.http_status, told.ended_at) == ("DELIVERED", 204, START)
    assert not store.fail(one, "late", is_final=True)


def test_delivery_of_a_dead_deliverer_is_made_again(bench: Bench, store: WebhookStore):
    end(bench)
    [lost] = claim(store)
    bench.now += HOLD_S - 1
    assert claim(store) == []
    bench.now += 1
    [again] = claim(store)
    assert (again.id, again.num_attempts) == (lost.id, 2)
    assert not store.succeed(lost, 200), "it is another's by now"
    assert store.succeed(again, 200)


def test_pauses_grow_to_an_hour_and_then_nobody_tries(bench: Bench, store: WebhookStore):
    end(bench)
    pauses = []
    for attempt in range(1, MAX_ATTEMPTS + 1):
        since = bench.now
        while not (found := claim(store)):
            bench.now += 1 + (bench.now - since) / 50
        pauses.append(bench.now - since)
        assert found[0].num_attempts == attempt
        assert store.fail(found[0], "http_500", 500, is_final=False)
    assert pauses[0] == 0
    for number, pause in enumerate(pauses[1:]):
        full = min(RETRY.max_s, 5 * 2**number)
        assert full / 2 <= pause <= full * 1.05 + 2, number
    assert max(pauses) >= RETRY.max_s / 2
    [state] = store.find("acme", limit=9)
    assert (state.status, state.error, state.http_status) == ("FAILED", "http_500", 500)
    bench.now += 10 * HOUR
    assert claim(store) == []


def test_final_failure_is_not_tried_again(bench: Bench, store: WebhookStore):
    end(bench)
    assert store.fail(claim(store)[0], "http_410", 410, is_final=True)
    bench.now += 10 * HOUR
    assert claim(store) == []


def test_clock_that_falls_delays_nothing_for_long(bench: Bench, store: WebhookStore):
    end(bench)
    store.fail(claim(store)[0], "timeout", is_final=False)
    end(bench)
    bench.now -= 0.4 * HOUR
    assert len(claim(store)) == 2
    bench.now -= 0.4 * HOUR
    assert len(claim(store)) == 2, "those were held in another time"


def test_one_tenants_deliveries_leave_room_for_others(bench: Bench, store: WebhookStore):
    for _ in range(20):
        end(bench, "greedy")
    end(bench, "small")
    found = store.claim(4, {}, 3)
    assert sorted(one.tenant for one in found) == ["greedy"] * 3 + ["small"]
    assert store.claim(4, {"greedy": 3, "small": 1}, 3) == []


def test_new_ones_go_before_those_that_failed(bench: Bench, store: WebhookStore):
    end(bench)
    store.fail(claim(store)[0], "timeout", is_final=False)
    bench.now += 60
    new = end(bench)
    assert [one.subject for one in claim(store, 1)] == [new]


def test_log_is_its_tenants_alone(bench: Bench, store: WebhookStore):
    ids = [end(bench, key_id=f"key_{i % 2}") for i in range(3)]
    end(bench, "other")
    found = store.find("acme", limit=9)
    assert [one.subject for one in found] == ids[::-1]
    assert [one.subject for one in store.find("acme", limit=9, before=found[0].id)] == ids[1::-1]
    assert [one.subject for one in store.find("acme", limit=9, subject=ids[1])] == [ids[1]]
    assert [one.subject for one in store.find("acme", limit=9, key_id="key_1")] == [ids[1]]
    for tenant, key_id in (("other", None), ("acme", "key_1")):
        with pytest.raises(NotFound):
            store.redeliver(tenant, found[0].id, key_id)


def test_what_has_ended_is_delivered_once_more_when_asked(bench: Bench, store: WebhookStore):
    end(bench)
    [one] = claim(store)
    with pytest.raises(Conflict):
        store.redeliver("acme", one.id)
    store.fail(one, "http_410", 410, is_final=True)
    assert store.redeliver("acme", one.id).status == "PENDING"
    [again] = claim(store)
    assert (again.id, again.num_attempts) == (one.id, 1)


def test_what_has_ended_goes_when_its_task_is_gone(bench: Bench, store: WebhookStore):
    kept, _gone, waiting = (end(bench, kept_s=k) for k in (10 * 86_400, 60, 60))
    for one in claim(store):
        if one.subject != waiting:
            store.succeed(one, 200)
    bench.now += 61
    with bench.database.write() as connection:  # as a task does that is removed by itself
        connection.exec_driver_sql("DELETE FROM tasks WHERE kept_us = 60000000")
    assert store.tidy() == 0
    bench.now += 86_400
    assert store.tidy() == 1
    assert {one.subject for one in store.find("acme", limit=9)} == {kept, waiting}
