"""Snapshots are written when they are due: whole, of this epoch, or not at all."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.stores import snapshots
from deployments.stores.database import Database
from tests.unit.stores.material import FORKSERVER, doc, put
from tests.unit.stores.replica import PACE, Replica, change, fill, snapshots_in


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
