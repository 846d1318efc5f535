"""What goes on beside the searches never shows in them."""

import logging
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.errors import StoreUnavailable
from deployments.stores import changes, dense, maintenance
from deployments.stores.changes import heads
from deployments.stores.collections import CollectionStore
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.follower import Follower
from deployments.stores.pace import Pace
from tests.unit.stores.replica import PACE, Replica, change, fill, only, snapshots_in


def test_epoch_and_settings_replace_the_follower_beside_the_searches(
    database: Database, replica: Replica
):
    right, before = replica.answers(), only(replica)
    for values in ({"epoch": 1}, {"index_settings": {"kind": "flat", "storage": "fp32"}}):
        change(database, **values)
        assert replica.answers() == right
        assert only(replica) is before, "it goes on until another is ready"
        replica.maintenance.round()
        assert only(replica) is not before
        before = only(replica)
        assert replica.answers() == right


def test_collection_that_is_gone_leaves_nothing(database: Database, replica: Replica, state: Path):
    replica.maintenance.round()
    CollectionStore(database).delete("c")
    replica.maintenance.round()
    assert replica.searcher.followers.all() == []
    assert list((state / "snapshots").iterdir()) == []


def test_dead_rows_are_dropped_while_searches_go_on(
    database: Database, state: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("deployments.stores.follower.MIN_DEAD_ROWS", 20)
    fill(database, 80)
    replica = Replica(database, state)
    replica.find()
    replica.maintenance.start()
    for number in range(60):
        DocumentStore(database).delete("c", f"d{number}")
        found = {chunk.document_id for chunk in replica.find(top_k=1000)}
        assert found == {f"d{i}" for i in range(number + 1, 80)}
    end_s = time.monotonic() + 20
    while 3 * only(replica).num_dead > only(replica).indexes.dense.num_rows:
        assert time.monotonic() < end_s
        time.sleep(0.01)
    assert {c.document_id for c in replica.find(top_k=1000)} == {f"d{i}" for i in range(60, 80)}
    replica.close()
    assert only(replica).indexes.dense.num_rows < 80
    assert dense.MIN_DEAD_ROWS > 80, "the index did not do it by itself"


def test_failure_rests_and_others_go_on(
    database: Database,
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    for name in "ab":
        fill(database, 3, collection=name)
    replica = Replica(database, state, pace=replace(PACE, rest_s=60.0))
    for name in "ab":
        replica.find(collection=name)
    bad = replica.searcher.followers.all()[0]
    tried = []

    def improve(follower: Follower, _go_on: object) -> bool:
        tried.append(follower)
        if follower is bad:
            raise ValueError("secret content")
        return False

    monkeypatch.setattr(Follower, "improve", improve)
    for _ in range(3):
        replica.maintenance.round()
    assert tried.count(bad) == 1
    own = replica.searcher.followers.all()
    assert len([one for one in tried if one in own]) == 4
    (record,) = (one for one in caplog.records if one.levelno == logging.WARNING)
    assert record.message == f"maintenance of collection {bad.collection_id} failed: ValueError"


def test_thread_outlives_a_failing_database(
    replica: Replica, monkeypatch: pytest.MonkeyPatch, state: Path
):
    broken = threading.Event()
    asked = heads

    def fail(ask: changes.Ask) -> dict[str, changes.Head]:
        if not broken.is_set():
            broken.set()
            raise StoreUnavailable("away")
        return asked(ask)

    monkeypatch.setattr(maintenance, "heads", fail)
    replica.maintenance.start()
    end_s = time.monotonic() + 20
    while not snapshots_in(state):
        assert time.monotonic() < end_s
        time.sleep(0.01)
    assert broken.is_set()
    replica.close()


def test_close_stops_a_long_piece_of_work(replica: Replica, monkeypatch: pytest.MonkeyPatch):
    begun = threading.Event()

    def improve(_follower: Follower, go_on) -> bool:
        begun.set()
        while go_on():
            time.sleep(0.005)
        return False

    monkeypatch.setattr(Follower, "improve", improve)
    replica.maintenance.start()
    assert begun.wait(20)
    replica.close()
    assert replica.maintenance._thread is not None
    assert not replica.maintenance._thread.is_alive()


def test_pace_is_sensible():
    pace = Pace()
    assert pace.max_changed >= pace.min_rows * pace.min_changed
