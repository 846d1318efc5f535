"""What stays in memory: the collections searched last, within a number and a budget."""

import logging
from pathlib import Path

import pytest

from deployments.stores.buckets import WHOLE
from deployments.stores.changes import Head
from deployments.stores.database import Database
from deployments.stores.follower import Follower
from deployments.stores.followers import Followers
from deployments.stores.lexical import LexicalIndex
from tests.unit.stores.material import doc, put
from tests.unit.stores.replica import Replica, fill


def head(name: str) -> Head:
    return Head(f"col_{name}", 1, 0, 8, "m")


class Sizes:
    """Followers whose sizes the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **options: int) -> None:
        self.sizes: dict[str, int] = {}
        size = property(lambda follower: self.sizes[follower.collection_id])
        monkeypatch.setattr(Follower, "num_bytes", size)
        self.held = Followers(100, WHOLE, **options)

    def search(self, name: str, num_bytes: int) -> None:
        self.sizes[f"col_{name}"] = num_bytes
        self.held.measured(name, self.held.current(name, head(name)))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.held.items()]


def test_least_recently_searched_goes_when_the_budget_is_spent(monkeypatch: pytest.MonkeyPatch):
    sizes = Sizes(monkeypatch, max_bytes=100)
    for name in "abc":
        sizes.search(name, 30)
    sizes.search("a", 30)
    sizes.search("d", 30)
    assert sizes.names == ["c", "a", "d"]
    assert (sizes.held.num_bytes, sizes.held.num_evicted) == (90, 1)
    sizes.search("a", 65)  # it has grown
    assert sizes.names == ["d", "a"]
    assert sizes.held.num_bytes == 95


def test_one_that_exceeds_the_budget_alone_is_served_and_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    sizes = Sizes(monkeypatch, max_bytes=100)
    sizes.search("a", 10)
    for _ in range(3):
        sizes.search("huge", 200)
    assert sizes.names == ["huge"]
    assert sizes.held.is_over_budget
    assert len([one for one in caplog.records if one.levelno == logging.WARNING]) == 1
    sizes.search("b", 10)
    assert sizes.names == ["b"]
    assert not sizes.held.is_over_budget


def test_sizes_of_what_is_dropped_and_swapped_are_forgotten(monkeypatch: pytest.MonkeyPatch):
    sizes = Sizes(monkeypatch, max_bytes=100)
    sizes.search("a", 40)
    old = sizes.held.known("a")
    assert old is not None
    new = sizes.held.started(head("a"))
    sizes.sizes["col_a"] = 50
    assert sizes.held.swap("a", old, new)
    assert not sizes.held.swap("a", old, new), "another was there first"
    assert sizes.held.num_bytes == 50
    sizes.held.drop("a", old)
    assert sizes.names == ["a"]
    sizes.held.drop("a")
    assert sizes.held.num_bytes == 0


def test_searches_are_right_while_the_budget_holds_one(database: Database, tmp_path: Path):
    for name in "abc":
        put(database, [doc(name, f"word {name}")], collection=name)
    replica = Replica(database, tmp_path / "state", max_collections_in_memory=1)
    for name in "abcabc":
        (chunk,) = replica.find(collection=name)
        assert chunk.document_id == name
    assert replica.searcher.followers.num_evicted == 5


def test_hundreds_of_small_collections_stay_in_one_replica(database: Database, tmp_path: Path):
    for number in range(300):
        put(database, [doc(f"d{number}", f"word {number}")], collection=f"c{number}")
    state = tmp_path / "state"
    replica = Replica(database, state)
    for _ in range(2):
        for number in range(300):
            (chunk,) = replica.find(collection=f"c{number}", mode="hybrid")
            assert chunk.document_id == f"d{number}"
    replica.maintenance.round()
    held = replica.searcher.followers
    assert (len(held.all()), held.num_loaded, held.num_evicted) == (300, 300, 0)
    assert held.num_bytes < 300 * 150_000
    assert not (state / "replicas").exists(), "small ones have no files"


def test_files_of_what_is_unloaded_go(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(LexicalIndex.__init__, "__defaults__", (None, 0))
    fill(database, 5, collection="a")
    fill(database, 5, collection="b")
    replica = Replica(database, tmp_path / "state", max_collections_in_memory=1)
    for name in "abab":
        assert len(replica.find(collection=name)) > 0
        assert len(list((tmp_path / "state").glob("replicas/*/*/meta.json"))) == 1
    replica.close()
    assert list((tmp_path / "state").glob("replicas/*/*/*")) == []


def test_room_is_made_at_the_cost_of_the_others(monkeypatch: pytest.MonkeyPatch):
    sizes = Sizes(monkeypatch, max_bytes=100)
    for name in "abc":
        sizes.search(name, 30)
    with sizes.held.room("a", 30) as has_room:
        assert has_room
        assert sizes.names == ["c", "a"]
        sizes.search("d", 30)
        assert sizes.names == ["a", "d"], "it is kept free meanwhile"
    sizes.search("b", 30)
    assert sizes.names == ["a", "d", "b"]


def test_room_that_cannot_be_made_costs_nobody_anything(monkeypatch: pytest.MonkeyPatch):
    sizes = Sizes(monkeypatch, max_bytes=100)
    sizes.search("a", 60)
    sizes.search("b", 30)
    with sizes.held.room("a", 60) as has_room:
        assert not has_room
        assert sizes.names == ["a", "b"]


def test_room_is_there_without_a_budget(monkeypatch: pytest.MonkeyPatch):
    sizes = Sizes(monkeypatch)
    sizes.search("a", 60)
    with sizes.held.room("a", 1 << 60) as has_room:
        assert has_room
