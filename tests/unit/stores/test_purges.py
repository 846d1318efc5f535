"""A purge ends when nothing of before is left; the old answers until another is built."""

import threading
import time
from pathlib import Path

import pytest

from deployments.errors import StoreUnavailable
from deployments.stores.changes import heads
from deployments.stores.collections import CollectionStore
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.follower import Follower
from tests.unit.stores.material import doc, put
from tests.unit.stores.replica import Replica, change, fill, only, snapshots_in


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
