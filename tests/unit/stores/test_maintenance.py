"""What goes on beside the searches never shows in them."""

import logging
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.errors import StoreUnavailable
from deployments.stores import changes, dense, maintenance, snapshots
from deployments.stores.changes import heads
from deployments.stores.collection_rows import change_collection
from deployments.stores.collections import CollectionStore, require_collection
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.follower import Follower
from deployments.stores.pace import Pace
from tests.unit.stores.material import FORKSERVER, doc, put
from tests.unit.stores.replica import PACE, Replica, fill


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "replica-state"


@pytest.fixture
def replica(database: Database, state: Path) -> Replica:
    fill(database)
    replica = Replica(database, state)
    replica.find()
    return replica


def snapshots_in(state: Path) -> list[str]:
    return [path.name for path in state.glob("snapshots/*/*/*") if path.name.isdecimal()]


def change(database: Database, **values: object) -> str:
    """Change the collection's row; return its id."""
    with database.write() as connection:
        change_collection(connection, require_collection(connection, "c"), **values)
    (collection_id,) = heads(database.rows)
    return collection_id


def only(replica: Replica) -> Follower:
    (follower,) = replica.searcher.followers.all()
    return follower


def test_snapshot_is_due_first_and_after_enough_changes(
    database: Database, replica: Replica, state: Path
):
    replica.maintenance.round()
    first = snapshots_in(state)
    assert len(first) == 1
    put(database, [doc("one", "more")])
    replica.find()
    replica.maintenance.round()
    assert snapshots_in(state) == first
    fill(database, 30, first=60)
    replica.find()
    replica.maintenance.round()
    assert snapshots_in(state) != first
    replica.maintenance.round()
    assert replica.snapshots.num_saved == 2


def test_small_collection_has_no_snapshot(database: Database, state: Path):
    fill(database)
    replica = Replica(database, state, pace=replace(PACE, min_rows=1000))
    replica.find()
    replica.maintenance.round()
    assert snapshots_in(state) == []


def test_snapshot_of_another_replica_is_enough(database: Database, replica: Replica, state: Path):
    other = Replica(database, state)
    other.find()
    replica.maintenance.round()
    other.maintenance.round()
    assert (replica.snapshots.num_saved, other.snapshots.num_saved) == (1, 0)


def test_lagging_snapshot_is_replaced_before_the_log_is_cut(database: Database, state: Path):
    fill(database)
    replica = Replica(database, state, pace=replace(PACE, min_changed=99.0, max_lag=3))
    for number in range(5):
        replica.find()
        replica.maintenance.round()
        put(database, [doc("one", f"version {number}")])
    assert replica.snapshots.num_saved == 2


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


def test_refusing_disk_costs_snapshots_only(
    database: Database, state: Path, caplog: pytest.LogCaptureFixture
):
    state.mkdir()
    for name in ("snapshots", "replicas"):
        (state / name).write_text("no folder can be here")
    fill(database)
    replica = Replica(database, state)
    right = replica.answers()
    replica.maintenance.round()
    put(database, [doc("one", "more")])
    assert "one" in {chunk.document_id for chunk in replica.find(top_k=1000)}
    replica.maintenance.round()
    assert replica.snapshots.num_saved == 0
    assert len(right[0]) == 20
    assert any("failed" in record.message for record in caplog.records)


def test_disk_that_fills_while_a_snapshot_is_written_leaves_none(
    replica: Replica, state: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(snapshots, "write_manifest", full)
        replica.maintenance.round()
    assert list(state.glob("snapshots/*/*/[!.]*")) == list(state.glob("snapshots/*/*/.new-*")) == []
    replica.maintenance._rests.clear()
    replica.maintenance.round()
    assert len(snapshots_in(state)) == 1


def test_purge_leaves_nothing_older(database: Database, replica: Replica, state: Path):
    replica.maintenance.round()
    DocumentStore(database).delete("c", "d7")
    collection_id = change(database, epoch=1)
    replica.maintenance.purge(collection_id)
    assert snapshots_in(state) == []
    assert [one.head.epoch for one in replica.searcher.followers._alive] == [1]
    assert "d7" not in {chunk.document_id for chunk in replica.find(top_k=1000)}
    replica.maintenance.round()
    assert len(snapshots_in(state)) == 1
    replica.maintenance.purge(collection_id)
    assert len(snapshots_in(state)) == 1, "what is of this epoch stays"


def test_purge_of_a_deleted_collection(database: Database, replica: Replica, state: Path):
    replica.maintenance.round()
    (collection_id,) = heads(database.rows)
    CollectionStore(database).delete("c")
    replica.maintenance.purge(collection_id)
    assert snapshots_in(state) == []
    assert list(replica.searcher.followers._alive) == []


def test_purge_waits_for_searches_that_use_the_old(
    database: Database, replica: Replica, monkeypatch: pytest.MonkeyPatch
):
    held = [only(replica)]
    collection_id = change(database, epoch=1)
    purging = threading.Thread(target=replica.maintenance.purge, args=[collection_id])
    purging.start()
    purging.join(0.3)
    assert purging.is_alive()
    held.clear()
    purging.join(20)
    assert not purging.is_alive()
    held.append(only(replica))
    change(database, epoch=2)
    monkeypatch.setattr("deployments.stores.followers.RELEASE_TIMEOUT_S", 0.05)
    with pytest.raises(StoreUnavailable):
        replica.maintenance.purge(collection_id)


class Slow:
    """Lets replacements be built up to where their indexes are improved, and no further.

    It holds no follower, which would keep a purge from ending.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.epochs: list[int] = []

        def improve(follower: Follower, go_on) -> bool:
            if follower.head.epoch > 0 and follower.head.epoch not in self.epochs:
                self.epochs.append(follower.head.epoch)
                self.begun.set()
                while go_on() and not self.may_end.is_set():
                    time.sleep(0.005)
            return False

        monkeypatch.setattr(Follower, "improve", improve)


def test_purge_lets_the_old_answer_until_another_is_built(
    database: Database, replica: Replica, monkeypatch: pytest.MonkeyPatch
):
    slow = Slow(monkeypatch)
    DocumentStore(database).delete("c", "d7")
    collection_id = change(database, epoch=1)
    purging = threading.Thread(target=replica.maintenance.purge, args=[collection_id])
    purging.start()
    assert slow.begun.wait(20)
    for _ in range(3):
        assert only(replica).head.epoch == 0
        assert "d7" not in {chunk.document_id for chunk in replica.find(top_k=1000)}
        replica.maintenance.round()
    put(database, [doc("written-meanwhile")])
    assert purging.is_alive(), "the receipt waits"
    slow.may_end.set()
    purging.join(20)
    assert slow.epochs == [1]
    assert replica.searcher.followers.num_loaded == 2, "it was built once, not by the rounds too"
    assert [one.head.epoch for one in replica.searcher.followers._alive] == [1]
    (head,) = heads(database.rows).values()
    assert only(replica).sequence == head.sequence, "no search has to catch up"
    assert "written-meanwhile" in {chunk.document_id for chunk in replica.find(top_k=1000)}


def test_purges_that_come_during_one_wait_and_share_the_next(
    database: Database, replica: Replica, monkeypatch: pytest.MonkeyPatch
):
    slow = Slow(monkeypatch)
    collection_id = change(database, epoch=1)
    threads = [threading.Thread(target=replica.maintenance.purge, args=[collection_id])]
    threads[0].start()
    assert slow.begun.wait(20)
    change(database, epoch=2)
    for _ in range(3):
        threads.append(threading.Thread(target=replica.maintenance.purge, args=[collection_id]))
        threads[-1].start()
    slow.may_end.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert slow.epochs == [1, 2]
    assert replica.searcher.followers.num_loaded == 3, "one for each epoch"
    assert [one.head.epoch for one in replica.searcher.followers._alive] == [2]


def test_purge_without_room_for_both_drops_the_old(database: Database, state: Path):
    fill(database)
    replica = Replica(database, state)
    replica.find()
    followers = replica.searcher.followers
    followers._max_bytes = int(1.5 * only(replica).num_bytes)
    replica.maintenance.purge(change(database, epoch=1))
    assert followers.all() == list(followers._alive) == []
    assert len(replica.find()) == 20


def test_snapshots_of_before_go_before_the_index_is_built(
    database: Database, replica: Replica, state: Path, monkeypatch: pytest.MonkeyPatch
):
    replica.maintenance.round()
    assert len(snapshots_in(state)) == 1
    slow = Slow(monkeypatch)
    collection_id = change(database, epoch=1)
    purging = threading.Thread(target=replica.maintenance.purge, args=[collection_id])
    purging.start()
    assert slow.begun.wait(20)
    assert snapshots_in(state) == []
    slow.may_end.set()
    purging.join(20)


def test_snapshot_of_an_old_epoch_is_never_published(
    database: Database, replica: Replica, state: Path, monkeypatch: pytest.MonkeyPatch
):
    write = snapshots.write_manifest

    def erased_meanwhile(*args: object) -> None:
        write(*args)
        change(database, epoch=1)

    monkeypatch.setattr(snapshots, "write_manifest", erased_meanwhile)
    replica.maintenance.round()
    assert snapshots_in(state) == []


def save_slowly(url: str, state: Path, point: str, reached: object) -> None:
    """Write a snapshot, and wait at a point of it to be killed."""

    def wait(*_: object) -> None:
        reached.send(point)
        time.sleep(60)

    name = {"rename": "sync_folder"}.get(point, point)
    setattr(snapshots, name, wait)
    if point == "before_rename":
        snapshots.Path.rename = wait
    replica = Replica(Database(url), state)
    replica.find()
    replica.maintenance.round()


@pytest.mark.parametrize("point", ["write_manifest", "before_rename", "rename"])
def test_killed_writer_leaves_a_whole_snapshot_or_none(
    database: Database, database_url: str, state: Path, point: str
):
    fill(database)
    receiver, sender = FORKSERVER.Pipe(duplex=False)
    process = FORKSERVER.Process(target=save_slowly, args=(database_url, state, point, sender))
    process.start()
    assert receiver.recv() == point
    process.kill()
    process.join(10)
    assert len(snapshots_in(state)) == (1 if point == "rename" else 0)
    replica = Replica(database, state)
    assert len(replica.find()) == 20
    assert replica.snapshots.num_loaded == len(snapshots_in(state))
    put(database, [doc(f"x{i}") for i in range(30)])
    replica.find()
    replica.maintenance.round()
    assert len(snapshots_in(state)) == 1
    assert list(state.glob("snapshots/*/*/.new-*")) == []
    assert replica.searcher.workspace is not None


def test_pace_is_sensible():
    pace = Pace()
    assert pace.max_changed >= pace.min_rows * pace.min_changed
